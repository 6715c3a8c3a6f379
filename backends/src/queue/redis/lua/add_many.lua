--[[
  Adds jobs to a queue, all or none.

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  how many jobs may wait
  ARGV[3]  how many queues there may be
  ARGV[4…] for each job its description in JSON and its data

  Answers {1, 0}, or {0, jobs that wait} or {-1, queues} where a limit forbids it.
]]
local p, now = KEYS[1], ARGV[1]
local waiting = pending(p)
if waiting + (#ARGV - 3) / 2 > tonumber(ARGV[2]) then
  return { 0, waiting }
end
if call("EXISTS", p .. "meta") == 0 and call("SCARD", "exprsn:queues") >= tonumber(ARGV[3]) then
  return { -1, ARGV[3] }
end
ensure_queue(p)
for at = 4, #ARGV, 2 do
  add(p, cjson.decode(ARGV[at]), ARGV[at + 1], now)
end
return { 1, 0 }
