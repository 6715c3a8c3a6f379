--[[
  Takes into the subscribers' queues what others have written to the stream, and what was read and never acknowledged.

  KEYS[1]  exprsn:events
  ARGV[1]  deliveries that may wait for a subscriber

  Answers the queues that got jobs.
]]
local names = {}
for _, service in ipairs(call("HKEYS", SUBSCRIPTIONS)) do
  local _, got = pull(service, tonumber(ARGV[1]))
  if got then
    names[#names + 1] = "events:" .. service
  end
end
return names
