import { Migration } from '@mikro-orm/migrations';

/** Files with their chunks, the contents that they have, to whom they were sent, and what is to be removed from the store. */
export class Files extends Migration {
  override up(): void {
    this.addSql(`
      create table contents (
        checksum text primary key,
        storage_key text not null,
        size bigint not null,
        created_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table files (
        file_id uuid primary key,
        owner_id uuid not null,
        filename text not null,
        file_size bigint not null,
        content_type text not null,
        expected_checksum text null,
        chunk_size int not null,
        chunk_count int not null,
        status text not null,
        error text not null,
        upload_id text null,
        checksum text null constraint files_checksum_foreign references contents (checksum),
        completing_by uuid null,
        completing_until timestamptz(3) null,
        created_at timestamptz(3) not null,
        updated_at timestamptz(3) not null,
        constraint files_status_check check (status in ('initiated', 'in_progress', 'completed', 'failed'))
      )`);
    // Only open uploads are counted and swept: small indexes, however many files there are.
    this.addSql(`
      create index files_open_owner_index on files (owner_id) where status in ('initiated', 'in_progress')`);
    this.addSql(`
      create index files_open_index on files (updated_at) where status in ('initiated', 'in_progress')`);
    this.addSql(`create index files_checksum_index on files (checksum)`);
    this.addSql(`
      create table chunks (
        file_id uuid not null constraint chunks_file_id_foreign references files (file_id) on delete cascade,
        chunk_id int not null,
        size bigint not null,
        uploaded_at timestamptz(3) not null,
        primary key (file_id, chunk_id)
      )`);
    this.addSql(`
      create table shares (
        file_id uuid not null constraint shares_file_id_foreign references files (file_id),
        conversation_id uuid not null,
        shared_at timestamptz(3) not null,
        primary key (file_id, conversation_id)
      )`);
    this.addSql(`
      create table removals (
        storage_key text primary key,
        due_at timestamptz(3) not null
      )`);
  }

  override down(): void {
    this.addSql('drop table removals, shares, chunks, files, contents');
  }
}
