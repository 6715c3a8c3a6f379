--[[
  Adds to a number kept as decimal text. A time to live counts from the first increment.

  KEYS[1]  the value's key
  ARGV[1]  what is added
  ARGV[2]  how long a new number lives, in milliseconds

  Answers {"ok", the sum}, {"text", ""} where the value is no number, or {"overflow", the number}. Numbers are text: Lua would
  round them.
]]
local held = redis.call("GET", KEYS[1])
local sum = redis.pcall("INCRBY", KEYS[1], ARGV[1])
if type(sum) == "table" and sum.err then
  if string.find(sum.err, "overflow") then
    return { "overflow", held }
  end
  return { "text", "" }
end
if not held then
  redis.call("PEXPIRE", KEYS[1], ARGV[2])
end
return { "ok", redis.call("GET", KEYS[1]) }
