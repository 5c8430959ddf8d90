-- Grants one request, or says when to come again.
-- KEYS[1] the window; ARGV[1] requests per minute.
-- Returns the microseconds to wait (0 when it is granted), the requests in the window, and the microseconds until the
-- last of them has left it.
local limit = tonumber(ARGV[1])
local second, sum = come(KEYS[1])
if sum + 1 > limit then
  local wait, empty_in = leaves_in(KEYS[1], second, sum + 1 - limit)
  return {wait, sum, empty_in}
end
return {0, add(KEYS[1], second, sum, second, 1), left_in(second)}
