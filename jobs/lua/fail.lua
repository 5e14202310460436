-- id, attempt, code, error, hint -> 1 if the job has failed now, by this attempt
local id, attempt, code, error, hint = unpack(ARGV)
if holds(id, attempt) then
  fail(id, code, error, hint)
  return 1
end
local found = redis.call('HMGET', job_key(id), 'state', 'attempt')
return (found[1] == 'failed' and found[2] == attempt) and 1 or 0
