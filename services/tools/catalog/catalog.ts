import { v4 as uuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { Rounds } from '#lib/rounds.ts';
import { addAdminChange, type AdminChange } from '../outbox.ts';
import { nameKey, toolNameTaken, toolNotFound } from '../tools.ts';

export interface Tool {
  /** UUID. */
  id: string;
  name: string;
  description: string;
  apiEndpoint: string;
  isActive: boolean;
  createdAt: Date;
}

export interface Page {
  limit: number;
  offset: number;
}

/** An administrator's changes to a tool; undefined fields stay as they are. */
export type ToolWish = Partial<Pick<Tool, 'name' | 'description' | 'apiEndpoint' | 'isActive'>>;

/** The administrator who changes something, and the request. */
export interface Actor {
  actorId: string;
  requestId: string;
}

/** A tool, and the outbox entry of its change, if it was changed. */
export interface ChangedTool {
  tool: Tool;
  entry: bigint | undefined;
}

export type Catalog = ReturnType<typeof openCatalog>;

interface Row {
  id: string;
  name: string;
  description: string;
  api_endpoint: string;
  is_active: boolean;
  created_at: Date;
}

const columns = 'id, name, description, api_endpoint, is_active, created_at';

function storedTool(row: Row): Tool {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    apiEndpoint: row.api_endpoint,
    isActive: row.is_active,
    createdAt: row.created_at,
  };
}

const uniqueViolation = '23505';
const maxLookedUp = 1_000;

/** The tools. Deleted ones are kept for their usage, and aren't returned. */
export function openCatalog(db: Database) {
  /** Makes a change and its outbox entry in one transaction. @throws HubError ALREADY_EXISTS if the name is taken */
  async function change<T>(work: (transaction: SqlTransaction) => Promise<T>): Promise<T> {
    try {
      return await db.transaction(work);
    } catch (error) {
      throw (error as { code?: unknown }).code === uniqueViolation ? toolNameTaken() : error;
    }
  }

  /** One query at a time: tools that are asked for while it runs are looked up together by the next one. */
  const lookingUp = new Rounds<string, Tool | undefined>(
    async (ids) => {
      const rows = await db.sql<Row>(
        `select ${columns} from tools where id = any($1::uuid[]) and is_active and deleted_at is null`,
        [[...new Set(ids)]],
      );
      const found = new Map(rows.map((row) => [row.id, storedTool(row)]));
      return ids.map((id) => found.get(id.toLowerCase()));
    },
    { name: 'tools.catalog', items: maxLookedUp },
  );

  const audit = (transaction: SqlTransaction, action: AdminChange['action'], target: string, actor: Actor) =>
    addAdminChange(transaction, { id: uuid(), ...actor, action, target, at: hubDate() });

  return {
    /** A page of the tools by name, and how many there are in all; active ones, inactive ones, or both. */
    async list({ limit, offset }: Page, isActive?: boolean): Promise<[Tool[], number]> {
      const [rows, [count]] = await Promise.all([
        db.sql<Row>(
          `select ${columns} from tools where deleted_at is null and ($1::boolean is null or is_active = $1)
            order by name_key limit $2 offset $3`,
          [isActive ?? null, limit, offset],
        ),
        db.sql<{ total: bigint }>(
          'select count(*) as total from tools where deleted_at is null and ($1::boolean is null or is_active = $1)',
          [isActive ?? null],
        ),
      ]);
      return [rows.map(storedTool), Number(count?.total)];
    },

    /** A tool that can be invoked. */
    findActive(id: string): Promise<Tool | undefined> {
      return lookingUp.do(id);
    },

    /** Adds a tool. @throws HubError ALREADY_EXISTS if the name is taken */
    async create(wanted: Omit<Tool, 'id' | 'createdAt'>, actor: Actor): Promise<ChangedTool> {
      const tool = { id: uuid(), ...wanted, createdAt: hubDate() };
      return change(async (transaction) => {
        await transaction.sql(`insert into tools (${columns}, name_key) values ($1, $2, $3, $4, $5, $6, $7)`, [
          tool.id,
          tool.name,
          tool.description,
          tool.apiEndpoint,
          tool.isActive,
          tool.createdAt,
          nameKey(tool.name),
        ]);
        return { tool, entry: await audit(transaction, 'tool.create', tool.id, actor) };
      });
    },

    /** Changes a tool. @throws HubError NOT_FOUND, or ALREADY_EXISTS if the name is taken */
    async update(id: string, wish: ToolWish, actor: Actor): Promise<ChangedTool> {
      return change(async (transaction) => {
        const [row] = await transaction.sql<Row>(
          `select ${columns} from tools where id = $1 and deleted_at is null for update`,
          [id],
        );
        if (row === undefined) throw toolNotFound();
        const stored = storedTool(row);
        const given = Object.entries(wish).filter(([, value]) => value !== undefined);
        const tool: Tool = { ...stored, ...Object.fromEntries(given) };
        if (given.every(([key]) => tool[key as keyof ToolWish] === stored[key as keyof ToolWish])) {
          return { tool, entry: undefined };
        }
        await transaction.sql(
          `update tools set name = $2, name_key = $3, description = $4, api_endpoint = $5, is_active = $6 where id = $1`,
          [id, tool.name, nameKey(tool.name), tool.description, tool.apiEndpoint, tool.isActive],
        );
        return { tool, entry: await audit(transaction, 'tool.update', id, actor) };
      });
    },

    /** Deletes a tool. @throws HubError NOT_FOUND, also if it was deleted before */
    async remove(id: string, actor: Actor): Promise<bigint> {
      return change(async (transaction) => {
        const gone = await transaction.sql(
          'update tools set deleted_at = $2 where id = $1 and deleted_at is null returning 1',
          [id, hubDate()],
        );
        if (gone.length === 0) throw toolNotFound();
        return audit(transaction, 'tool.delete', id, actor);
      });
    },

    /**
     * Names work that is counted like a tool's, for lists of usage. It is stored as a deleted tool: it can't be invoked or changed, and
     * another tool may have its name.
     */
    async name(id: string, name: string): Promise<void> {
      await db.sql(
        `insert into tools (${columns}, name_key, deleted_at) values ($1, $2, '', '', false, $3, $4, $3)
         on conflict (id) do nothing`,
        [id, name, hubDate(), nameKey(name)],
      );
    },

    /** Adds a demo tool, or updates its endpoint. Other changes by administrators stay, also its deletion. */
    async seed(tool: Omit<Tool, 'createdAt' | 'isActive'>): Promise<void> {
      await db.sql(
        `insert into tools (${columns}, name_key)
         select $1, $2, $3, $4, true, $5, $6
          where not exists (select from tools where name_key = $6 and deleted_at is null and id <> $1)
         on conflict (id) do update set api_endpoint = excluded.api_endpoint`,
        [tool.id, tool.name, tool.description, tool.apiEndpoint, hubDate(), nameKey(tool.name)],
      );
    },
  };
}
