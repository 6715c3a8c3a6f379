--[[
  Takes tokens from a bucket where they are there; takes none otherwise. A bucket that is not kept is full.

  A clock that goes back, or another host's that is behind, adds nothing. A capacity that has shrunk spills what no longer
  fits.

  KEYS[1]  the bucket's key
  ARGV[1]  now, in milliseconds since the Unix epoch
  ARGV[2]  the capacity
  ARGV[3]  tokens that flow in each second
  ARGV[4]  tokens wanted

  Answers {1 where they were taken, what is left as text with its fraction}.
]]
local now, capacity, rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call("HMGET", KEYS[1], "tokens", "at")
local filled, at = capacity, now
if kept[1] then
  at = tonumber(kept[2])
  filled = math.min(tonumber(kept[1]) + math.max(now - at, 0) * rate / 1000, capacity)
  at = math.max(at, now)
end
local taken = wanted <= filled and 1 or 0
local left = filled - taken * wanted
local text = string.format("%.17g", left)
redis.call("HSET", KEYS[1], "tokens", text, "at", string.format("%.0f", at))
-- One millisecond more than until it is full: never forgotten while it is not.
local year = 366 * 24 * 3600000
local full = rate > 0 and math.ceil((capacity - left) * 1000 / rate) + 1 or year
redis.call("PEXPIRE", KEYS[1], string.format("%.0f", math.min(full, year)))
return { taken, text }
