--[[
  Stops or restarts handing out jobs: BullMQ 5 keeps the line of a paused queue in a list of its own.

  KEYS[1]  the queue's prefix
  ARGV[1]  "1" to pause
]]
local p = KEYS[1]
ensure_queue(p)
local pause = ARGV[1] == "1"
local from, to = p .. "paused", p .. "wait"
if pause then
  from, to = to, from
  call("HSET", p .. "meta", "paused", 1)
  call("DEL", p .. "marker")
else
  call("HDEL", p .. "meta", "paused")
end
-- One by one where both hold jobs, which only a version that moved them otherwise leaves behind.
if call("EXISTS", to) == 0 and call("EXISTS", from) == 1 then
  call("RENAME", from, to)
else
  while call("RPOPLPUSH", from, to) do
  end
end
if not pause then
  if call("EXISTS", p .. "wait", p .. "prioritized") > 0 then
    mark(p)
  else
    mark_delayed(p)
  end
end
emit(p, pause and "paused" or "resumed")
return 1
