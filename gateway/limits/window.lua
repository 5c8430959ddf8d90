#!lua flags=allow-oom
-- The beginning of the scripts that count what a key uses in a minute: in the second that runs and the 60 full ones
-- before it, so that no 60 s, wherever they begin, see more than the limit.
-- A hash: `second`, that the window has come to; `sum`, of all; and what each second used, by its number modulo 61.
-- The clock is Redis' own: those of the gateways may differ.
local SECONDS = 61
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Moves the window on to the second that runs. Returns its second and its sum.
local function come(key)
  local second = tonumber(time[1])
  local last, sum = unpack(redis.call('HMGET', key, 'second', 'sum'))
  last, sum = tonumber(last or second), tonumber(sum or 0)
  if second < last then
    if last - second < SECONDS then
      return last, sum -- The clock was put back: the window waits for it.
    end
    redis.call('DEL', key)
    redis.call('HSET', key, 'second', second, 'sum', sum, second % SECONDS, sum)
    redis.call('PEXPIRE', key, SECONDS * 1000)
  elseif second - last >= SECONDS then
    redis.call('DEL', key)
    sum = 0
  elseif second > last then
    local left = {} -- What these hold was used 61 seconds before.
    for other = last + 1, second do
      left[#left + 1] = other % SECONDS
    end
    for _, used in ipairs(redis.call('HMGET', key, unpack(left))) do
      sum = sum - (used or 0)
    end
    redis.call('HDEL', key, unpack(left))
    redis.call('HSET', key, 'second', second, 'sum', sum)
  end
  return second, sum
end

-- Adds to what was used in the second `at` of a window that has come to `second`. Returns the new sum.
local function add(key, second, sum, at, used)
  redis.call('HSET', key, 'second', second, 'sum', sum + used)
  if redis.call('HINCRBY', key, at % SECONDS, used) == used then
    redis.call('PEXPIRE', key, SECONDS * 1000) -- It is the first of its second.
  end
  return sum + used
end

-- Microseconds until a second has left the window.
local function left_in(second)
  return (second + SECONDS) * 1000000 - now
end

-- Microseconds until `over` of what is in the window has left it, and until all of it has.
local function leaves_in(key, second, over)
  local used, fields = {}, redis.call('HGETALL', key)
  for number = 1, #fields, 2 do
    used[tonumber(fields[number]) or fields[number]] = tonumber(fields[number + 1])
  end
  local enough, newest = second, second
  for other = second - SECONDS + 1, second do
    local here = used[other % SECONDS] or 0
    if here > 0 then
      enough, newest = over > 0 and other or enough, other
      over = over - here
    end
  end
  return left_in(enough), left_in(newest)
end
