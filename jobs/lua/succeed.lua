-- id -> 1 if the job is successful now
local id = ARGV[1]
local state = redis.call('HGET', job_key(id), 'state')
if state == 'accepted' or state == 'running' then
  finish(id, 'successful', 'done')
  return 1
end
return state == 'successful' and 1 or 0
