-- id, attempt or '' for whatever attempt -> 1 if the job is successful now
local id, attempt = unpack(ARGV)
local state = redis.call('HGET', job_key(id), 'state')
if state == 'successful' then
  return 1
end
if holds(id, attempt) or (attempt == '' and (state == 'accepted' or state == 'running')) then
  finish(id, 'successful', 'done')
  return 1
end
return 0
