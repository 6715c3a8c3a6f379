--[[
  Adds the job of an occurrence, unless another host has been faster.

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  the recurrence's id
  ARGV[3]  which occurrence: its time
  ARGV[4]  when the following one is due
  ARGV[5]  the job's description in JSON
  ARGV[6]  its data

  Answers 1 where it was still to be added.
]]
local p = KEYS[1]
local all = p .. "repeat"
local due = call("ZSCORE", all, ARGV[2])
if not due or tonumber(due) ~= tonumber(ARGV[3]) then
  return 0
end
call("ZADD", all, ARGV[4], ARGV[2])
call("HINCRBY", all .. ":" .. ARGV[2], "ic", 1)
add(p, cjson.decode(ARGV[5]), ARGV[6], ARGV[1])
return 1
