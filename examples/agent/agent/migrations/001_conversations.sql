-- Conversations and what was said in them.

create table conversations (
    id         uuid primary key,
    started_at timestamptz not null default now()
);

create table messages (
    id              bigint generated always as identity primary key,
    conversation_id uuid not null references conversations on delete cascade,
    role            text not null check (role in ('user', 'assistant')),
    content         text not null,
    said_at         timestamptz not null default now()
);

create index messages_of_a_conversation on messages (conversation_id, id);
