-- What is remembered of a session, or nothing when it would be one too many.
-- KEYS[1] its turns, the oldest first; KEYS[2] the tenant's sessions by the second at which they end.
-- ARGV[1] how many sessions a tenant may have.
-- Returns the turns; nil when the session is new and there is no room for it.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', redis.call('TIME')[1])
if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[1]) then
  return false
end
return redis.call('LRANGE', KEYS[1], 0, -1)
