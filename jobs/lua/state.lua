-- Put before every script. Keys are computed from ids: one Valkey, no cluster. Time is the server's, so that the
-- clocks of workers need not agree.

local JOBS = 'foveate:jobs'  -- sorted set of all job ids by creation
local LIVE = 'foveate:live'  -- set of the ids of jobs that have not ended
local function job_key(id) return 'foveate:job:' .. id end  -- hash: the record
local function users_key(image) return 'foveate:image:' .. image end  -- set: live jobs that read the image
local function gone_key(image) return 'foveate:gone:' .. image end  -- the image is being deleted
local function idempotency_key(digest) return 'foveate:idempotency:' .. digest end  -- id of the first job

local function now()
  local time = redis.call('TIME')
  return string.format('%d.%06d', time[1], time[2])
end

local function lease_until(seconds)
  return string.format('%.6f', tonumber(now()) + tonumber(seconds))
end

-- Terminal states are entered here alone.
local function finish(id, state, message)
  local key = job_key(id)
  redis.call('HSET', key, 'state', state, 'message', message, 'finished', now(), 'updated', now())
  redis.call('HDEL', key, 'lease_until')
  redis.call('SREM', LIVE, id)
  redis.call('SREM', users_key(redis.call('HGET', key, 'image')), id)
  if state == 'successful' then
    redis.call('HSET', key, 'progress', 100)
  end
end

local function fail(id, code, error, hint)
  finish(id, 'failed', error)
  redis.call('HSET', job_key(id), 'code', code, 'error', error, 'hint', hint)
end

-- Does `attempt` hold the job?
local function holds(id, attempt)
  local found = redis.call('HMGET', job_key(id), 'state', 'attempt')
  return found[1] == 'running' and found[2] == attempt
end
