-- id, attempt, worker, lease in seconds -> 1 if the worker holds the job now
local id, attempt, worker, lease = unpack(ARGV)
local key = job_key(id)
local found = redis.call('HMGET', key, 'state', 'attempt', 'worker')
if found[2] ~= attempt then
  return 0
end
if found[1] == 'running' then
  return found[3] == worker and 1 or 0  -- the client sent the command again
end
if found[1] ~= 'accepted' then
  return 0
end
redis.call('HSET', key, 'state', 'running', 'worker', worker, 'lease_until', lease_until(lease),
  'message', 'starting', 'updated', now())
redis.call('HSETNX', key, 'started', now())
return 1
