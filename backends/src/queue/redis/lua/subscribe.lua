--[[
  Makes the given subscriptions those of a service. Its group begins with the next event, and goes when nothing is wanted.

  KEYS[1]  exprsn:events
  ARGV[1]  the service
  ARGV[2]  what it wants: topics and attempts, in JSON
  ARGV[3]  how many it is
]]
local service = ARGV[1]
local known = call("HEXISTS", SUBSCRIPTIONS, service) == 1
if ARGV[3] == "0" then
  if known then
    call("HDEL", SUBSCRIPTIONS, service)
    call("XGROUP", "DESTROY", STREAM, service)
  end
  return 0
end
if not known then
  call("XGROUP", "CREATE", STREAM, service, "$", "MKSTREAM")
end
call("HSET", SUBSCRIPTIONS, service, ARGV[2])
return 1
