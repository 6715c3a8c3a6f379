--[[
  Puts a failed job back to wait, its attempts counted anew (BullMQ's reprocessJob).

  KEYS[1]  the queue's prefix
  ARGV[1]  the job's id

  Answers "retried", "missing" or "other" where it has not failed.
]]
local p, id = KEYS[1], ARGV[1]
if call("EXISTS", p .. id) == 0 then
  return "missing"
end
if call("ZREM", p .. "failed", id) == 0 then
  return "other"
end
call("HDEL", p .. id, "atm", "ats", "stc", "defa", "failedReason", "returnvalue", "finishedOn", "processedOn")
enqueue(p, id, tonumber(call("HGET", p .. id, "priority")) or 0)
emit(p, "waiting", "jobId", id, "prev", "failed")
return "retried"
