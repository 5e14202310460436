-- id -> nothing; a job that has ended stays as it is
local id = ARGV[1]
local state = redis.call('HGET', job_key(id), 'state')
if state == 'accepted' or state == 'running' then
  finish(id, 'dismissed', 'dismissed')
end
