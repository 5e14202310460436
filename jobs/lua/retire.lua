-- image, seconds -> ids of the live jobs that read the image; none: no new job may use it from now on
local image, seconds = unpack(ARGV)
local users = redis.call('SMEMBERS', users_key(image))
if #users == 0 then
  redis.call('SET', gone_key(image), 1, 'EX', seconds)
end
return users
