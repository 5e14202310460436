-- id, attempt, only if expired (1 or 0), count a loss (1 or 0), most losses, code, error, hint
-- -> 1 if the job waits now as attempt + 1, so that it must be delivered again
local id, attempt, only_expired, loss, most, code, error, hint = unpack(ARGV)
local key = job_key(id)
local found = redis.call('HMGET', key, 'state', 'attempt', 'lease_until')
local following = string.format('%d', tonumber(attempt) + 1)
if found[1] == 'accepted' and found[2] == following then
  return 1
end
if not holds(id, attempt) then
  return 0
end
if only_expired == '1' and tonumber(found[3]) > tonumber(now()) then
  return 0
end
local losses = redis.call('HINCRBY', key, 'losses', loss)
if losses >= tonumber(most) then
  fail(id, code, error, hint)
  return 0
end
redis.call('HSET', key, 'state', 'accepted', 'attempt', following, 'message', 'waiting for another worker: ' .. error,
  'updated', now())
redis.call('HDEL', key, 'worker', 'lease_until')
return 1
