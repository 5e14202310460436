-- id, image, model, options, digest of the idempotency key or '', digest of the body -> {verdict, id}
local id, image, model, options, idempotency, body = unpack(ARGV)
if idempotency ~= '' then
  local first = redis.call('GET', idempotency_key(idempotency))
  if first == id then  -- the client sent the command again
    return {'created', id}
  end
  if first then
    local same = redis.call('HGET', job_key(first), 'body') == body
    return {same and 'exists' or 'conflict', first}
  end
end
if redis.call('EXISTS', gone_key(image)) == 1 then
  return {'gone', id}
end
if redis.call('EXISTS', job_key(id)) == 1 then  -- sent again, too
  return {'created', id}
end
local time = now()
redis.call('HSET', job_key(id), 'id', id, 'image', image, 'model', model, 'options', options, 'state', 'accepted',
  'attempt', 1, 'losses', 0, 'progress', 0, 'message', 'waiting for a worker', 'created', time, 'updated', time,
  'idempotency', idempotency, 'body', body)
redis.call('ZADD', JOBS, time, id)
redis.call('SADD', LIVE, id)
redis.call('SADD', users_key(image), id)
if idempotency ~= '' then
  redis.call('SET', idempotency_key(idempotency), id)
end
return {'created', id}
