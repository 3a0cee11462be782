"""The Lua scripts that make each step of RedisStorage atomic.

Keys, all with the run's prefix:

    run                  hash    run parameters, `spec` (an EnvSpec message)
    state                hash    env_steps head tail bytes samples stream weights_session weights_version
    seqs                 hash    session -> last stored seq
    episode:<index>      string  an Episode message
    stored               hash    index -> "<env_steps after it> <ms since 1970>", of the window's episodes
    weights:<id>         string  safetensors; id is "<session> <version>"
    due                  zset    evaluation points that are not reported
    due:weights          hash    point -> id of its weights; absent while it waits for the first ones
    due:leases           hash    point -> when its lease ends, in ms
    results              hash    point -> Evaluation message
    upload:<group>:<n>   string  what was sent and is not committed yet; expires
    changes              channel names of topics

Large values never pass through Lua: they are SET under an upload key, and a script renames it. Numbers of 64
bits (seq, version) are decimal strings of 20 digits, which compare as strings; Lua's numbers have 53 bits.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name by which Redis caches it."""

    text: str

    @property
    def sha(self) -> str:
        """The script's SHA-1, as EVALSHA takes it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# KEYS[1] is the prefix. A script that finds no run must not begin one: the storage was emptied.
_COMMON = """
local prefix = KEYS[1]
local run, state = prefix .. 'run', prefix .. 'state'
local due, due_weights, due_leases = prefix .. 'due', prefix .. 'due:weights', prefix .. 'due:leases'
local total = tonumber(redis.call('HGET', run, 'total_env_steps'))
if not total then return redis.error_reply('NORUN') end
local function get(field) return tonumber(redis.call('HGET', state, field)) end
local function publish(topic) redis.call('PUBLISH', prefix .. 'changes', topic) end
local function episode_key(index) return prefix .. 'episode:' .. string.format('%.0f', index) end
local function newest_weights()
  local session, version = unpack(redis.call('HMGET', state, 'weights_session', 'weights_version'))
  return session .. ' ' .. version, session, version
end
"""

# ARGV 1-3. The rules are those of Rules in storage.py.
_LIMITER = (
    _COMMON
    + """
local batch_size, per_insert, lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local env_steps, head, tail = get('env_steps'), get('head'), get('tail')
local bytes, samples = get('bytes'), get('samples')
local function may_insert()
  local owed = per_insert * head - samples
  return head < batch_size or owed <= per_insert * lead or owed < batch_size
end
local function may_sample()
  return head - tail >= batch_size and samples + batch_size <= per_insert * head
end
"""
)

# ARGV: batch_size, seed, samples_per_insert as "name value" pairs to compare, total_env_steps last.
OPEN_RUN = Script("""
local run, state = KEYS[1] .. 'run', KEYS[1] .. 'state'
local known = redis.call('EXISTS', run) == 1
for i = 1, #ARGV - 1, 2 do
  if known then
    local held = redis.call('HGET', run, ARGV[i])
    if held ~= ARGV[i + 1] then return {ARGV[i], held, ARGV[i + 1]} end
  else
    redis.call('HSET', run, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', run, 'total_env_steps', ARGV[#ARGV])
for _, field in ipairs({'env_steps', 'head', 'tail', 'bytes', 'samples', 'stream'}) do
  redis.call('HSETNX', state, field, 0)
end
redis.call('HSETNX', state, 'weights_session', '')
redis.call('HSETNX', state, 'weights_version', string.rep('0', 20))
for _, topic in ipairs({'samples', 'episodes', 'weights', 'evaluations'}) do
  redis.call('PUBLISH', KEYS[1] .. 'changes', topic)
end
return {}
""")

# ARGV: limiter; 4 window_episodes, 5 window_bytes, 6 evaluation_interval, 7 upload prefix, 8 '1' if imported,
# then per episode session, seq, length. Returns {'HELD'|'MISSING'|outcomes, first index, tail, env_steps,
# head, samples, weights_version, total}.
COMMIT = Script(
    _LIMITER
    + """
local window_episodes, window_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local interval, upload, imported = tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'
local count = (#ARGV - 8) / 3
local first_index, steps_before, samples_were_due = head, env_steps, may_sample()
local function answer(outcomes)
  local version = redis.call('HGET', state, 'weights_version')
  return {outcomes, first_index, tail, env_steps, head, samples, version, total}
end

local outcomes, stored, marks, last_seq, steps = {}, {}, {}, {}, env_steps
for i = 1, count do
  local session, seq, length = ARGV[6 + 3 * i], ARGV[7 + 3 * i], tonumber(ARGV[8 + 3 * i])
  local last = last_seq[session] or redis.call('HGET', prefix .. 'seqs', session)
  if last and seq <= last then
    outcomes[i] = 'D'
  elseif steps >= total then
    outcomes[i] = 'C'
  else
    outcomes[i], last_seq[session], steps = 'S', seq, steps + length
    stored[#stored + 1], marks[#marks + 1] = i, steps
  end
end
if #stored > 0 and not imported and not may_insert() then return answer('HELD') end
for _, i in ipairs(stored) do
  if redis.call('EXISTS', upload .. i) == 0 then return answer('MISSING') end
end

local now = redis.call('TIME')
now = string.format(' %.0f', now[1] * 1000 + math.floor(now[2] / 1000))
for n, i in ipairs(stored) do
  local episode = episode_key(head)
  redis.call('HSET', prefix .. 'stored', string.format('%.0f', head), string.format('%.0f', marks[n]) .. now)
  redis.call('RENAME', upload .. i, episode)
  redis.call('PERSIST', episode)
  bytes, head = bytes + redis.call('STRLEN', episode), head + 1
end
env_steps = steps
for i = 1, count do
  if outcomes[i] ~= 'S' then redis.call('UNLINK', upload .. i) end
end
for session, seq in pairs(last_seq) do redis.call('HSET', prefix .. 'seqs', session, seq) end
while head - tail > window_episodes or (bytes > window_bytes and head - tail > batch_size) do
  bytes = bytes - redis.call('STRLEN', episode_key(tail))
  redis.call('UNLINK', episode_key(tail))
  redis.call('HDEL', prefix .. 'stored', string.format('%.0f', tail))
  tail = tail + 1
end
redis.call('HSET', state, 'env_steps', env_steps, 'head', head, 'tail', tail, 'bytes', bytes)

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

# ARGV: samples. Returns the number of the new stream.
OPEN_STREAM = Script(
    _COMMON
    + """
redis.call('HSET', state, 'samples', ARGV[1])
publish('samples')
publish('episodes')
return redis.call('HINCRBY', state, 'stream', 1)
"""
)

# ARGV: limiter; 4 stream, 5 batch, 6 '1' to take. Returns {answer, tail, head}.
RESERVE = Script(
    _LIMITER
    + """
if get('stream') ~= tonumber(ARGV[4]) then return {'SUPERSEDED', tail, head} end
local after, is_due = (tonumber(ARGV[5]) + 1) * batch_size, may_sample()
if ARGV[6] == '1' and (is_due or samples == after) then
  local held_back = not may_insert()
  samples = after
  redis.call('HSET', state, 'samples', samples)
  if held_back and may_insert() then publish('samples') end
  return {'GRANTED', tail, head}
end
return {(env_steps >= total and not is_due) and 'END' or 'WAIT', tail, head}
"""
)

_RELEASE = """
local function release(id)
  if id == newest_weights() then return end
  for _, used in ipairs(redis.call('HVALS', due_weights)) do
    if used == id then return end
  end
  redis.call('UNLINK', prefix .. 'weights:' .. id)
end
"""

# ARGV: session, version, upload key. Returns the newest version if that is higher, else ''.
PUBLISH_WEIGHTS = Script(
    _COMMON
    + _RELEASE
    + """
local old_id, old_session, old_version = newest_weights()
local id = ARGV[1] .. ' ' .. ARGV[2]
if ARGV[1] == old_session and ARGV[2] <= old_version then
  redis.call('UNLINK', ARGV[3])
  return id == old_id and '' or old_version
end
redis.call('RENAME', ARGV[3], prefix .. 'weights:' .. id)
redis.call('PERSIST', prefix .. 'weights:' .. id)
redis.call('HSET', state, 'weights_session', ARGV[1], 'weights_version', ARGV[2])
for _, point in ipairs(redis.call('ZRANGE', due, 0, -1)) do
  if redis.call('HSETNX', due_weights, point, id) == 1 then publish('evaluations') end
end
release(old_id)
publish('weights')
return ''
"""
)

# ARGV: lease in ms. Returns {point, id of its weights} or {'', '', ms until a lease ends or -1, 1 if over}.
CLAIM_EVALUATION = Script(
    _COMMON
    + """
local time = redis.call('TIME')
local now, wait = time[1] * 1000 + math.floor(time[2] / 1000), -1
local points = redis.call('ZRANGE', due, 0, -1)
for _, point in ipairs(points) do
  local weights = redis.call('HGET', due_weights, point)
  local left = (tonumber(redis.call('HGET', due_leases, point)) or 0) - now
  if weights and left <= 0 then
    redis.call('HSET', due_leases, point, now + tonumber(ARGV[1]))
    return {point, weights}
  elseif weights and (wait < 0 or left < wait) then
    wait = left
  end
end
return {'', '', wait, (get('env_steps') >= total and #points == 0) and 1 or 0}
"""
)

# ARGV: point, Evaluation message. Returns 1 if the point is or was due.
REPORT_EVALUATION = Script(
    _COMMON
    + _RELEASE
    + """
if redis.call('HEXISTS', prefix .. 'results', ARGV[1]) == 1 then return 1 end
if not redis.call('ZSCORE', due, ARGV[1]) then return 0 end
local weights = redis.call('HGET', due_weights, ARGV[1])
redis.call('HSET', prefix .. 'results', ARGV[1], ARGV[2])
redis.call('ZREM', due, ARGV[1])
redis.call('HDEL', due_leases, ARGV[1])
redis.call('HDEL', due_weights, ARGV[1])
if weights then release(weights) end
publish('evaluations')
return 1
"""
)
