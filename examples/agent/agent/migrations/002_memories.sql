-- Some messages are worth finding again: they tell something, rather than ask.

alter table messages add column memorable boolean not null default false;

alter table messages add column words tsvector
    generated always as (to_tsvector('english', content)) stored;

create index memories_by_word on messages using gin (words) where memorable;
