--[[
  Removes the oldest events beyond those kept, never one that a group has yet to read.

  KEYS[1]  exprsn:events
  ARGV[1]  how many are kept
  ARGV[2]  events published before this instant go too

  Answers how many went.
]]
local before = call("XLEN", STREAM)
for _, service in ipairs(call("HKEYS", SUBSCRIPTIONS)) do
  pull(service, math.huge)
end
local oldest = call("XRANGE", STREAM, "-", "+", "COUNT", 1000)
local excess = before - tonumber(ARGV[1])
local gone = 0
for at, entry in ipairs(oldest) do
  if at <= excess or tonumber(fields_of(entry).time) < tonumber(ARGV[2]) then
    gone = gone + call("XDEL", STREAM, entry[1])
  else
    break
  end
end
return gone
