// Made from the protos by dev/client: `npm run generate`.
import type { Caller } from '../caller.ts';
import { AccountService, UserAdminService } from './chat4all/account/v1/account.pb.ts';
import { AssistantService, TaskService } from './chat4all/assistant/v1/assistant.pb.ts';
import { AuthService } from './chat4all/auth/v1/auth.pb.ts';
import { ConnectorsService, SimulationService } from './chat4all/connectors/v1/connectors.pb.ts';
import { ConversationService } from './chat4all/conversation/v1/conversation.pb.ts';
import { EventsService } from './chat4all/events/v1/events.pb.ts';
import { WebhooksService } from './chat4all/events/v1/webhooks.pb.ts';
import { FileService } from './chat4all/file/v1/file.pb.ts';
import { MessageService } from './chat4all/message/v1/message.pb.ts';
import { OperationsService } from './chat4all/message/v1/operations.pb.ts';
import { RouterService } from './chat4all/router/v1/router.pb.ts';
import { ToolService, UsageService, SubscriptionService, ToolAdminService } from './chat4all/tools/v1/tools.pb.ts';

/** All services that can be called over REST. */
export class Services {
  /** The caller's own account. */
  readonly account: AccountService;
  /** Users and what was changed by administrators, for administrators. */
  readonly userAdmin: UserAdminService;
  /** Conversations with the assistant. `user_id` in each request is the caller's UUID or number. */
  readonly assistant: AssistantService;
  /** The caller's tasks. `user_id` in each request is the caller's UUID or number. */
  readonly task: TaskService;
  /** Logs users in and looks them up. */
  readonly auth: AuthService;
  /** Lists the channels and what was handed to them. Deliveries themselves are requested over the bus. */
  readonly connectors: ConnectorsService;
  /** Simulated networks, for administrators. */
  readonly simulation: SimulationService;
  /** Opens and lists conversations, and tells who their members are. */
  readonly conversation: ConversationService;
  /**
   * Tells clients what happens, from one log of events that each of them reads from a place of its own.
   *
   * A client first takes a cursor, then loads the state that it wants to show (conversations, messages), then reads the events behind the
   * cursor: so it misses nothing. Each event comes at least once, those of a conversation in their order; one that comes twice has the same
   * `event_id`. No event is ever left out in silence: where some can't be told any more, a `reset` says so, and the client loads its state
   * anew.
   */
  readonly events: EventsService;
  /**
   * Sends a user's events to URLs of theirs, by the Standard Webhooks specification (https://www.standardwebhooks.com).
   *
   * Each event is a POST with the body `{"type": "message.accepted", "timestamp": …, "data": …}`. `data` is the event as StreamEvents tells it.
   * The headers are `webhook-id` (the event's `event_id`), `webhook-timestamp` and `webhook-signature`. Each event comes at least once; one
   * that comes again has the same `webhook-id`. Events of a conversation come in their order, one after the other; those of different
   * conversations come independently of each other.
   *
   * Whatever is not answered with 2xx within 15 s has failed, and is tried again for three days, after pauses that grow from 5 s to 4 h. The
   * later events of its conversation wait. An endpoint that answers 410 is disabled. One for which everything has failed for three days is
   * paused, and its owner is told by the event `webhook_paused`. The webhooks of a user who is disabled are paused, too; once active again, the
   * user resumes them.
   */
  readonly webhooks: WebhooksService;
  /**
   * Uploads, stores and serves files.
   *
   * An upload is: InitiateUpload; UploadChunk for each chunk, in any order and in parallel, each repeated as often as needed; CompleteUpload
   * with the SHA-256 of the whole file. After an interruption, GetFile tells which chunks are missing.
   */
  readonly file: FileService;
  /** Accepts messages and reports how their delivery went. */
  readonly message: MessageService;
  /** Operations for administrators: dead letters and the audit. */
  readonly operations: OperationsService;
  /** Reports routing decisions. Messages themselves come over the bus. */
  readonly router: RouterService;
  /** The tools, and their invocation. */
  readonly tool: ToolService;
  /** The caller's usage. */
  readonly usage: UsageService;
  /** Plans and the caller's subscription. */
  readonly subscription: SubscriptionService;
  /** The tools, and the usage of all users, for administrators. */
  readonly toolAdmin: ToolAdminService;

  constructor(caller: Caller) {
    this.account = new AccountService(caller);
    this.userAdmin = new UserAdminService(caller);
    this.assistant = new AssistantService(caller);
    this.task = new TaskService(caller);
    this.auth = new AuthService(caller);
    this.connectors = new ConnectorsService(caller);
    this.simulation = new SimulationService(caller);
    this.conversation = new ConversationService(caller);
    this.events = new EventsService(caller);
    this.webhooks = new WebhooksService(caller);
    this.file = new FileService(caller);
    this.message = new MessageService(caller);
    this.operations = new OperationsService(caller);
    this.router = new RouterService(caller);
    this.tool = new ToolService(caller);
    this.usage = new UsageService(caller);
    this.subscription = new SubscriptionService(caller);
    this.toolAdmin = new ToolAdminService(caller);
  }
}
