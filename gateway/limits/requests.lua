-- Grants one request, or says when to come again; and where there is room, some more in advance (`advance.py`).
-- KEYS[1] the window; ARGV[1] requests per minute; ARGV[2] how many more are wanted.
-- Returns the microseconds to wait (0 when it is granted), the requests in the window, the microseconds until the last of
-- them has left it, how many more were granted, and the second in which they count.
local PART = 128 -- Of what is left, as much as a worker may hold: all together keep little from each other.
local limit = tonumber(ARGV[1])
local second, sum = come(KEYS[1])
if sum + 1 > limit then
  local wait, empty_in = leaves_in(KEYS[1], second, sum + 1 - limit)
  return {wait, sum, empty_in, 0, second}
end
local more = math.min(tonumber(ARGV[2]), math.floor((limit - sum - 1) / PART))
return {0, add(KEYS[1], second, sum, second, 1 + more), left_in(second), more, second}
