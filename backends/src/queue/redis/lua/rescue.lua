--[[
  Returns active jobs without a lock to the front of the line (BullMQ's moveStalledJobsToWait). BullMQ looks twice before
  it does so; our locks begin in the script that makes a job active, so that once is enough.

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  how often a job may stall; the next time it fails

  Answers how many jobs it was.
]]
local p, now = KEYS[1], ARGV[1]
local count = 0

local function rescue(id)
  local key = p .. id
  call("SREM", p .. "stalled", id)
  call("HDEL", key, "x-token")
  emit(p, "stalled", "jobId", id)
  if call("HINCRBY", key, "stc", 1) > tonumber(ARGV[2]) then
    call("HINCRBY", key, "atm", 1)
    finish(p, id, "failed", now, "failedReason", "job stalled more than allowable limit")
    return
  end
  put_back(p, id)
end

for _, id in ipairs(call("LRANGE", p .. "active", 0, -1)) do
  if call("EXISTS", p .. id .. ":lock") == 0 then
    call("LREM", p .. "active", 1, id)
    if call("EXISTS", p .. id) == 1 then
      rescue(id)
      count = count + 1
    end
  end
end
return count
