--[[
  BullMQ's flows: a parent waits for its children, which may be in other queues. Prepended to scripts that end jobs.

  A child's hash has `parent`: the parent's id and `queueKey`, and what the child's failure means for it. The parent's keys
  `:dependencies`, `:processed`, `:failed` and `:unsuccessful` name children by their keys.
]]

-- Lets a parent that waits for its children join the line, at its front.
local function release_parent(p, id, now)
  if call("ZREM", p .. "waiting-children", id) == 0 then
    return
  end
  local wish = call("HMGET", p .. id, "priority", "delay")
  local priority, wait = tonumber(wish[1]) or 0, tonumber(wish[2]) or 0
  if wait > 0 then
    delay(p, id, tonumber(now) + wait)
    return
  end
  if priority == 0 then
    push(p, "RPUSH", id)
    mark(p)
  else
    enqueue(p, id, priority)
  end
  emit(p, "waiting", "jobId", id, "prev", "waiting-children")
end

-- What a failed child means for its parent, by the child's options.
local function child_failed(p, parent, child, reason, now)
  local key = p .. parent.id
  if not (parent.fpof or parent.cpof or parent.idof or parent.rdof) then
    return
  end
  if call("SREM", key .. ":dependencies", child) == 0 then
    return
  end
  if parent.fpof then
    -- Whoever begins the parent finds that it is to fail.
    call("ZADD", key .. ":unsuccessful", now, child)
    call("HSET", key, "defa", "child " .. child .. " failed")
    release_parent(p, parent.id, now)
    return
  end
  if not parent.rdof then
    call("HSET", key .. ":failed", child, reason)
  end
  if parent.cpof or call("SCARD", key .. ":dependencies") == 0 then
    release_parent(p, parent.id, now)
  end
end

-- Tells the parent of a job that has ended, if it has one.
local function tell_parent(child, set, value, now)
  local text = call("HGET", child, "parent")
  local parent = text and decoded(text)
  if not parent or not parent.id or not parent.queueKey then
    return
  end
  local p = parent.queueKey .. ":"
  local key = p .. parent.id
  if call("EXISTS", key) == 0 then
    return
  end
  if set == "failed" then
    child_failed(p, parent, child, value or "", now)
  elseif call("SREM", key .. ":dependencies", child) == 1 then
    call("HSET", key .. ":processed", child, value or "null")
    if call("SCARD", key .. ":dependencies") == 0 then
      release_parent(p, parent.id, now)
    end
  end
end

