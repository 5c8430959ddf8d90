-- The beginning of the scripts that a new session may come by.
-- KEYS[1] a session's turns, the oldest first; KEYS[2] the tenant's sessions by the second at which they end.
-- ARGV[1] how many sessions a tenant may have.

-- Whether the session is there already, or would not be one too many. It writes nothing: a Redis that is full refuses
-- only the first write of a script.
local function has_room()
  local now = redis.call('TIME')[1]
  return redis.call('EXISTS', KEYS[1]) == 1 or redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf') < tonumber(ARGV[1])
end
