--[[
  Sets the defaults of a queue's jobs.

  KEYS[1]  the queue's prefix
  ARGV     names and values
]]
ensure_queue(KEYS[1])
call("HSET", KEYS[1] .. "exprsn", unpack(ARGV))
return 1
