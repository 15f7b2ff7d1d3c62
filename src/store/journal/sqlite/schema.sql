-- The journal of a fedavg coordinator, form 1. The tables are the program's own; query the views.
CREATE TABLE writer (token TEXT NOT NULL);
CREATE TABLE streams (
    stream INTEGER PRIMARY KEY, -- 0 is the coordinator's, n is job n's
    position INTEGER NOT NULL,  -- how many batches it has
    snapshot BLOB               -- what all records before those in the table came to
);
CREATE TABLE records (
    stream INTEGER NOT NULL,
    position INTEGER NOT NULL,  -- of the batch
    part INTEGER NOT NULL,      -- within the batch
    semantics INTEGER NOT NULL, -- the number of the rules by which it was written
    body BLOB NOT NULL,         -- MessagePack
    PRIMARY KEY (stream, position, part)
) WITHOUT ROWID;
CREATE TABLE facts (
    stream INTEGER NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,         -- JSON as text, or bytes
    PRIMARY KEY (stream, name)
);
CREATE TABLE entries (
    stream INTEGER NOT NULL,
    log TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,         -- JSON
    PRIMARY KEY (stream, log, number)
) WITHOUT ROWID;

-- One row for each job: its state is "queued", "running" or "ended".
CREATE VIEW jobs AS SELECT
    stream AS job,
    body ->> '$.spec.model' AS model,
    body ->> '$.spec.dataset' AS dataset,
    body ->> '$.spec.rounds' AS rounds,
    body ->> '$.stage' AS state,
    body ->> '$.outcome.outcome' AS outcome,
    body ->> '$.outcome.reason' AS reason,
    body ->> '$.submitted' AS submitted_ms,
    body ->> '$.ended' AS ended_ms
FROM facts WHERE name = 'job';

-- One row for each worker that is remembered.
CREATE VIEW workers AS SELECT
    CAST(substr(name, 8) AS INTEGER) AS worker,
    body ->> '$.registration.name' AS name,
    body ->> '$.state' AS state,
    body ->> '$.registration.device' AS device,
    body ->> '$.registration.slots' AS slots,
    body ->> '$.registered' AS registered_ms
FROM facts WHERE stream = 0 AND name LIKE 'worker/%';

-- One row for each round that ended. A round that was abandoned has no version.
CREATE VIEW rounds AS SELECT
    stream AS job,
    number AS round,
    body ->> '$.version' AS version,
    body ->> '$.train_loss' AS train_loss,
    body ->> '$.test_loss' AS test_loss,
    body ->> '$.test_accuracy' AS test_accuracy,
    json_array_length(body, '$.folded') AS clients,
    body ->> '$.seconds' AS seconds,
    body ->> '$.bytes' AS bytes,
    body ->> '$.abandoned' AS abandoned,
    body AS record
FROM entries WHERE log = 'rounds';

-- One row for each worker in each round: what it did for it.
CREATE VIEW contributions AS SELECT
    rounds.job AS job,
    rounds.round AS round,
    part.value ->> '$.worker' AS worker,
    part.value ->> '$.name' AS name,
    part.value ->> '$.device' AS device,
    part.value ->> '$.clients' AS clients,
    part.value ->> '$.examples' AS examples,
    part.value ->> '$.seconds' AS seconds,
    part.value ->> '$.energy_joules' AS energy_joules
FROM rounds, json_each(rounds.record, '$.contributions') AS part;

-- One row for each entry of a job's event log.
CREATE VIEW events AS SELECT
    stream AS job,
    number AS sequence,
    body ->> '$.time' AS time_ms,
    body ->> '$.event' AS event,
    body AS entry
FROM entries WHERE log = 'events';
