-- id, attempt, lease in seconds, percent, message -> 1 while the attempt holds the job
local id, attempt, lease, percent, message = unpack(ARGV)
if not holds(id, attempt) then
  return 0
end
local key = job_key(id)
local progress = math.max(tonumber(redis.call('HGET', key, 'progress')), math.min(tonumber(percent), 99))
redis.call('HSET', key, 'progress', progress, 'message', message, 'lease_until', lease_until(lease), 'updated', now())
return 1
