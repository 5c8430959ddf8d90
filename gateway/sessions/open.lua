-- What is remembered of a session, or nothing when it would be one too many.
-- KEYS and ARGV as in room.lua.
-- Returns the turns; nil when the session is new and there is no room for it.
if not has_room() then
  return false
end
return redis.call('LRANGE', KEYS[1], 0, -1)
