--[[
  Renews locks (BullMQ's extendLocks).

  KEYS[1]  the queue's prefix
  ARGV[1]  how long they last from now on, in milliseconds
  ARGV[2…] for each the job's id and its token

  Answers the places in the list, from 0, of those that are void.
]]
local p, void = KEYS[1], {}
for at = 2, #ARGV, 2 do
  local lock = p .. ARGV[at] .. ":lock"
  if call("GET", lock) == ARGV[at + 1] then
    call("PEXPIRE", lock, ARGV[1])
    call("SREM", p .. "stalled", ARGV[at])
  else
    void[#void + 1] = (at - 2) / 2
  end
end
return void
