--[[
  Removes the oldest events beyond those kept, never one that a group has yet to read.

  KEYS[1]  exprsn:events
  ARGV[1]  how many are kept
  ARGV[2]  events published before this instant go too

  Answers how many went for their age, at most 100.
]]
for _, service in ipairs(call("HKEYS", SUBSCRIPTIONS)) do
  pull(service, math.huge)
end
call("XTRIM", STREAM, "MAXLEN", ARGV[1])
local gone = 0
for _, entry in ipairs(call("XRANGE", STREAM, "-", "+", "COUNT", 100)) do
  local event = event_of(entry)
  if event and tonumber(event.time) >= tonumber(ARGV[2]) then
    break
  end
  gone = gone + call("XDEL", STREAM, entry[1])
end
return gone
