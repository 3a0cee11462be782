"""The Lua scripts of RedisTable, those of batches apart; memory_table.py says the same in Python.

Keys of a table, with its prefix (see redis_scripts.py):

    state            hash    head tail bytes samples stream; of accounted tables also available base consumed
                             updated dropped max_priority
    episode:<index>  string  an Episode message
    stored           hash    index -> "<env_steps after it> <ms since 1970>", of the window's episodes
    scores           string  eight bytes per index from `base` on: a little-endian double, 0 for what has left
    times            hash    index -> how often it was handed out, where that is limited
    times:consumed   hash    index -> how many of these have been consumed
    batches          hash    number of a batch taken and not consumed -> its Draws as text
"""

from replay.redis_scripts import COMMON, Script

# ARGV 1-13 are those of _rules() in redis_table.py.
TABLE = (
    COMMON
    + """
local name, names = ARGV[1], ARGV[2]
local batch_size, minimum, queue = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == 'queue'
local per_insert, lead = tonumber(ARGV[6]), tonumber(ARGV[7])
local max_episodes, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local prioritised, accounted = ARGV[10] == 'prioritised', ARGV[11] == '1'
local max_times, max_age = tonumber(ARGV[12]), tonumber(ARGV[13])

local own = table_prefix(name)
local its, batches, scores = own .. 'state', own .. 'batches', own .. 'scores'
local times, times_consumed = own .. 'times', own .. 'times:consumed'
local function numbers(...)
  local values = redis.call('HMGET', its, ...)
  for i = 1, #values do values[i] = tonumber(values[i] or 0) end
  return unpack(values)
end
local head, tail, bytes, samples = numbers('head', 'tail', 'bytes', 'samples')
local available, base, consumed = head - tail, 0, 0
if accounted then available, base, consumed = numbers('available', 'base', 'consumed') end

local changed, gone_keys, gone_fields = false, {}, {}
local function unlink_gone()
  redis.call('UNLINK', unpack(gone_keys))
  redis.call('HDEL', own .. 'stored', unpack(gone_fields))
  gone_keys, gone_fields = {}, {}
end
local function save()
  if not changed then return end
  if #gone_keys > 0 then unlink_gone() end
  redis.call('HSET', its, 'head', head, 'tail', tail, 'bytes', bytes, 'samples', samples)
  if accounted then
    redis.call('HSET', its, 'available', available, 'base', base, 'consumed', consumed)
  end
end
local function text(number) return string.format('%d', number) end
local function score_of(index)
  if index < tail or index >= head then return 0 end
  local at = (index - base) * 8
  return (struct.unpack('<d', redis.call('GETRANGE', scores, at, at + 7)))
end
local function set_score(index, score)
  redis.call('SETRANGE', scores, (index - base) * 8, struct.pack('<d', score))
end

local function may_sample()
  if queue then return available >= batch_size end
  return available >= minimum and samples + batch_size <= per_insert * head
end
local function may_insert(count, size)
  if queue then
    local held = available + batch_size * redis.call('HLEN', batches)
    return (held + count <= max_episodes and bytes + size <= max_bytes)
      or (held == available and available < batch_size)
  end
  return per_insert * head - samples <= per_insert * lead or not may_sample()
end
local function is_due(batch)
  return may_sample() or (not queue and available >= batch_size and samples >= (batch + 1) * batch_size)
end
local function count(batch)
  local held_back = not may_insert(1, 0)
  samples = queue and samples + batch_size or math.max(samples, (batch + 1) * batch_size)
  changed = true
  if held_back and may_insert(1, 0) then publish('samples') end
end

local function remove(index)
  local field, n = text(index), #gone_keys + 1
  gone_keys[n], gone_fields[n] = own .. 'episode:' .. field, field
  bytes, changed = bytes - redis.call('STRLEN', gone_keys[n]), true
  if n == 1000 then unlink_gone() end -- a call takes no more than some thousand arguments
  if not accounted then
    tail, available = tail + 1, available - 1
    return
  end
  if score_of(index) > 0 then available = available - 1 end
  set_score(index, 0)
  redis.call('HDEL', times, field)
  redis.call('HDEL', times_consumed, field)
  while tail < head and score_of(tail) == 0 do tail = tail + 1 end
  if tail - base > head - tail + 16 then -- more than half of them are 0
    redis.call('SET', scores, redis.call('GETRANGE', scores, (tail - base) * 8, -1))
    base = tail
  end
end
"""
)

# ARGV: rules; 14 evaluation_interval, 15 '1' if imported, then per episode session, seq, length, size,
# weights version, Episode message ('' to ask first). Returns {'HELD'|'MISSING' (not held, but not sent)|
# outcomes, first index, tail, env_steps, inserts, samples, weights_version, total}, where inserts and samples
# are of all tables.
COMMIT = Script(
    TABLE
    + """
local interval, imported = tonumber(ARGV[14]), ARGV[15] == '1'
local count = (#ARGV - 15) / 6
local env_steps = get('env_steps')
local first_index, steps_before, samples_were_due = head, env_steps, may_sample()
local function answer(outcomes)
  local inserts, sampled = 0, 0
  for other in string.gmatch(names, '%S+') do
    local counts = redis.call('HMGET', table_prefix(other) .. 'state', 'head', 'samples')
    inserts, sampled = inserts + counts[1], sampled + counts[2]
  end
  local version = redis.call('HGET', state, 'weights_version')
  return {outcomes, first_index, tail, env_steps, inserts, sampled, version, total}
end

local now = redis.call('TIME')
now = ' ' .. text(now[1] * 1000 + math.floor(now[2] / 1000))
local new_score = prioritised and tonumber(redis.call('HGET', its, 'max_priority') or 1)
local outcomes, last_seq, blobs, marks, new_scores = {}, {}, {}, {}, {}
local stored, size, steps, missing = 0, 0, env_steps, false
for i = 1, count do
  local at = 10 + 6 * i
  local session, seq = ARGV[at], ARGV[at + 1]
  local last = last_seq[session] or redis.call('HGET', prefix .. 'seqs', session)
  if last and seq <= last then
    outcomes[i] = 'D'
  elseif steps >= total then
    outcomes[i] = 'C'
  else
    local index, blob = text(head + stored), ARGV[at + 5]
    outcomes[i], last_seq[session], steps = 'S', seq, steps + ARGV[at + 2]
    stored, size, missing = stored + 1, size + ARGV[at + 3], missing or blob == ''
    blobs[2 * stored - 1], blobs[2 * stored] = own .. 'episode:' .. index, blob
    marks[2 * stored - 1], marks[2 * stored] = index, text(steps) .. now
    new_scores[stored] = struct.pack('<d', new_score or ARGV[at + 4] + 1)
  end
end
if stored > 0 then
  if not (imported and not queue or may_insert(stored, size)) then return answer('HELD') end
  if missing then return answer('MISSING') end
  redis.call('MSET', unpack(blobs))
  redis.call('HSET', own .. 'stored', unpack(marks))
  for session, seq in pairs(last_seq) do redis.call('HSET', prefix .. 'seqs', session, seq) end
  if accounted then redis.call('SETRANGE', scores, (head - base) * 8, table.concat(new_scores)) end
end
env_steps, bytes, head, available = steps, bytes + size, head + stored, available + stored
while not queue and (head - tail > max_episodes or (bytes > max_bytes and available > minimum)) do
  remove(tail)
end
changed = true
save()
redis.call('HSET', state, 'env_steps', env_steps)

local weights, session = newest_weights()
local last_point = imported and 0 or env_steps
for point = (math.floor(steps_before / interval) + 1) * interval, last_point, interval do
  redis.call('ZADD', due, point, point)
  if session ~= '' then redis.call('HSET', due_weights, point, weights) end
  publish('evaluations')
end
local completed = steps_before < total and env_steps >= total
if completed or (may_sample() and not samples_were_due) then publish('episodes') end
if completed then publish('evaluations') end
return answer(table.concat(outcomes))
"""
)

# ARGV: rules; 14 batch, then index and priority of each. Returns an index that was never stored, or -1.
UPDATE_PRIORITIES = Script(
    TABLE
    + """
local batch, highest = tonumber(ARGV[14]), tonumber(redis.call('HGET', its, 'max_priority') or 1)
for i = 15, #ARGV, 2 do
  if tonumber(ARGV[i]) >= head then return ARGV[i] end
end
if batch <= tonumber(redis.call('HGET', its, 'updated') or -1) then return -1 end
for i = 15, #ARGV, 2 do
  local index, priority = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local score = score_of(index)
  if score ~= 0 then set_score(index, score > 0 and priority or -priority) end
  highest = math.max(highest, priority)
end
redis.call('HSET', its, 'updated', batch, 'max_priority', string.format('%.17g', highest))
return -1
"""
)
