--[[
  Adds the next job of one of BullMQ's job schedulers, when its present one begins (BullMQ's updateJobScheduler).

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  the scheduler's id
  ARGV[3]  the id of the job that begins
  ARGV[4]  when the next one is due
  ARGV[5]  its options in JSON

  Answers 1 where it was still to be added: neither stands the scheduler at another job, nor has somebody been faster.
]]
local p, now, scheduler, due = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local key = p .. "repeat:" .. scheduler
local at = call("ZSCORE", p .. "repeat", scheduler)
if not at or ARGV[3] ~= "repeat:" .. scheduler .. ":" .. string.format("%.0f", tonumber(at)) then
  return 0
end
local id = "repeat:" .. scheduler .. ":" .. due
if call("EXISTS", p .. id) == 1 then
  emit(p, "duplicated", "jobId", id)
  return 0
end
local template = call("HMGET", key, "name", "data")
local wait = math.max(tonumber(due) - tonumber(now), 0)
local priority = tonumber(decoded(ARGV[5]).priority) or 0
call("ZADD", p .. "repeat", due, scheduler)
call("HINCRBY", key, "ic", 1)
call("INCR", p .. "id")
call("HSET", p .. id, "name", template[1], "data", template[2] or "{}", "opts", ARGV[5], "timestamp", now, "delay", wait,
  "priority", priority, "rjk", scheduler)
emit(p, "added", "jobId", id, "name", template[1])
if wait > 0 then
  delay(p, id, tonumber(now) + wait)
else
  enqueue(p, id, priority)
  emit(p, "waiting", "jobId", id)
end
return 1
