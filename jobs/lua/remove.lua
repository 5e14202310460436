-- id -> 1 if the record is no longer there; 0: the job has not ended
local id = ARGV[1]
local key = job_key(id)
if redis.call('SISMEMBER', LIVE, id) == 1 then
  return 0
end
local idempotency = redis.call('HGET', key, 'idempotency')
if idempotency and idempotency ~= '' then
  redis.call('DEL', idempotency_key(idempotency))
end
redis.call('DEL', key)
redis.call('ZREM', JOBS, id)
return 1
