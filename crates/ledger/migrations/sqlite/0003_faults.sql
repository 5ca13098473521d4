-- What the executor could not do since the last progress, as {"code": …, "message": …}; NULL when all is well.
ALTER TABLE aggregates ADD COLUMN fault TEXT;
-- How often in a row.
ALTER TABLE aggregates ADD COLUMN faults INTEGER NOT NULL DEFAULT 0;
-- Since when it is parked; set_aside says why.
ALTER TABLE aggregates ADD COLUMN parked_at INTEGER;
