--[[
  Renews locks (BullMQ's extendLocks), also those that have ended while nobody looked for their jobs.

  KEYS[1]  the queue's prefix
  ARGV[1]  how long they last from now on, in milliseconds
  ARGV[2…] for each the job's id and its token

  Answers the places in the list, from 0, of those that are void.
]]
local p, void = KEYS[1], {}
for at = 2, #ARGV, 2 do
  local lock = p .. ARGV[at] .. ":lock"
  local held = call("GET", lock)
  local lapsed = not held and call("HGET", p .. ARGV[at], "x-token") == ARGV[at + 1]
  if held == ARGV[at + 1] or (lapsed and call("LPOS", p .. "active", ARGV[at])) then
    call("SET", lock, ARGV[at + 1], "PX", ARGV[1])
    call("SREM", p .. "stalled", ARGV[at])
  else
    void[#void + 1] = (at - 2) / 2
  end
end
return void
