import test from 'ava';
import { providerContract } from './contract.ts';
import { understand, type Intent, type Language } from './phrases.ts';
import type { Prompt, PromptMessage, ProviderEvent, ToolRequest } from './provider.ts';
import { openScripted } from './scripted.ts';
import { toolContent } from './tool-content.ts';

const tools = [
  ...['add_task', 'list_tasks', 'complete_task', 'delete_task', 'update_task'].map((name) => `tasks__${name}`),
  ...['find_users', 'list_conversations', 'read_messages', 'send_message', 'message_status'].map(
    (name) => `hub__${name}`,
  ),
].map((name) => ({ name, description: name, parameters: { type: 'object' } }));

const user = (content: string): PromptMessage => ({ role: 'user', content });

async function read(prompt: Prompt): Promise<{ text: string; requests: ToolRequest[]; events: ProviderEvent[] }> {
  const events: ProviderEvent[] = [];
  for await (const event of openScripted().complete(prompt, new AbortController().signal)) events.push(event);
  return {
    events,
    text: events.map((event) => (event.kind === 'text' ? event.delta : '')).join(''),
    requests: events.flatMap((event) => (event.kind === 'toolRequest' ? [event.request] : [])),
  };
}

/**
 * Has the model answer as a turn does, with tools that answer what `results` say, in that order.
 *
 * @returns the tools that it called, what it said, and the conversation with both
 */
async function converse(before: readonly PromptMessage[], text: string, results: readonly unknown[]) {
  const messages: PromptMessage[] = [...before, user(text)];
  const calls: [name: string, given: unknown][] = [];
  for (const result of results) {
    const { requests } = await read({ messages, tools });
    const [request] = requests;
    if (request === undefined) break;
    calls.push([request.name, JSON.parse(request.arguments)]);
    messages.push({ role: 'assistant', content: '', toolRequests: requests });
    const outcome = result instanceof Error ? { result: result.message, isError: true } : { result, isError: false };
    messages.push({ role: 'tool', toolRequestId: request.id, content: toolContent(outcome) });
  }
  const last = await read({ messages, tools });
  messages.push({ role: 'assistant', content: last.text, toolRequests: last.requests });
  return { calls, text: last.text, messages };
}

const add = (title: string): Intent => ({ kind: 'add', title });
const list = (status: 'all' | 'pending' | 'completed'): Intent => ({ kind: 'list', status });
const phrases: [text: string, intent: Intent, language: Language][] = [
  ['Add a task to buy groceries', add('Buy groceries'), 'en'],
  ['add task: Buy groceries.', add('Buy groceries'), 'en'],
  ['I need to remember to pay bills', add('Pay bills'), 'en'],
  ['Please remind me to pay bills!', add('Pay bills'), 'en'],
  ['Show me all my tasks', list('all'), 'en'],
  ['list my tasks', list('all'), 'en'],
  ['What’s pending?', list('pending'), 'en'],
  ["What's pending?", list('pending'), 'en'],
  ['What have I completed?', list('completed'), 'en'],
  ['Mark task 3 as complete', { kind: 'complete', taskId: 3 }, 'en'],
  ['mark task #12 done', { kind: 'complete', taskId: 12 }, 'en'],
  ["Change task 1 to 'Call mom tonight'", { kind: 'change', taskId: 1, title: 'Call mom tonight' }, 'en'],
  ["Change task 1 to 'Don't call mom'", { kind: 'change', taskId: 1, title: "Don't call mom" }, 'en'],
  ['Delete task 2', { kind: 'delete', taskId: 2 }, 'en'],
  ['Delete the meeting task', { kind: 'deleteByTitle', words: 'meeting' }, 'en'],
  [
    "Send 'hi there' to user2 on whatsapp",
    { kind: 'send', text: 'hi there', to: 'user2', channels: ['whatsapp'] },
    'en',
  ],
  [
    'Send "Let\'s go to town" to user2 on WhatsApp and instagram',
    { kind: 'send', text: "Let's go to town", to: 'user2', channels: ['whatsapp', 'instagram'] },
    'en',
  ],
  ["Send 'hi there' to user2", { kind: 'send', text: 'hi there', to: 'user2', channels: [] }, 'en'],
  ['Was it delivered?', { kind: 'status' }, 'en'],
  ['Call weather with {"city": "Lisbon"}', { kind: 'call', tool: 'weather', arguments: '{"city": "Lisbon"}' }, 'en'],
  ['Hello', { kind: 'talk' }, 'en'],
  ['What is the meaning of life?', { kind: 'talk' }, 'en'],

  ['Añade una tarea para comprar comida', add('Comprar comida'), 'es'],
  ['Agrega una tarea: comprar comida', add('Comprar comida'), 'es'],
  ['Necesito recordar pagar las facturas', add('Pagar las facturas'), 'es'],
  ['Tengo que acordarme de pagar las facturas', add('Pagar las facturas'), 'es'],
  ['Muéstrame todas mis tareas', list('all'), 'es'],
  ['¿Qué está pendiente?', list('pending'), 'es'],
  ['¿Qué tengo pendiente?', list('pending'), 'es'],
  ['¿Qué he completado?', list('completed'), 'es'],
  ['Marca la tarea 3 como completada', { kind: 'complete', taskId: 3 }, 'es'],
  ["Cambia la tarea 1 a 'Llamar a mamá'", { kind: 'change', taskId: 1, title: 'Llamar a mamá' }, 'es'],
  ['Borra la tarea 2', { kind: 'delete', taskId: 2 }, 'es'],
  ['Elimina la tarea de la reunión', { kind: 'deleteByTitle', words: 'reunión' }, 'es'],
  ["Envía 'hola' a user2 por whatsapp", { kind: 'send', text: 'hola', to: 'user2', channels: ['whatsapp'] }, 'es'],
  ['¿Se entregó?', { kind: 'status' }, 'es'],
  ['Hola, ¿quién eres?', { kind: 'talk' }, 'es'],

  ['Adicione uma tarefa para comprar comida', add('Comprar comida'), 'pt'],
  ['Preciso lembrar de pagar as contas', add('Pagar as contas'), 'pt'],
  ['Preciso me lembrar de pagar as contas', add('Pagar as contas'), 'pt'],
  ['Mostre todas as minhas tarefas', list('all'), 'pt'],
  ['Mostre-me todas as minhas tarefas', list('all'), 'pt'],
  ['O que está pendente?', list('pending'), 'pt'],
  ['O que eu já concluí?', list('completed'), 'pt'],
  ['O que completei?', list('completed'), 'pt'],
  ['Marque a tarefa 3 como concluída', { kind: 'complete', taskId: 3 }, 'pt'],
  ["Mude a tarefa 1 para 'Ligar para a mãe'", { kind: 'change', taskId: 1, title: 'Ligar para a mãe' }, 'pt'],
  ['Apague a tarefa 2', { kind: 'delete', taskId: 2 }, 'pt'],
  ['Apague a tarefa da reunião', { kind: 'deleteByTitle', words: 'reunião' }, 'pt'],
  ["Envie 'oi' para user2 no whatsapp", { kind: 'send', text: 'oi', to: 'user2', channels: ['whatsapp'] }, 'pt'],
  ['Foi entregue?', { kind: 'status' }, 'pt'],
  ['Olá, tudo bem?', { kind: 'talk' }, 'pt'],
];

for (const [text, intent, language] of phrases) {
  test(`the scripted model understands: ${text}`, (t) => {
    t.deepEqual(understand(text), { intent, language });
  });
}

test('a text of any length is understood, or not, at once', (t) => {
  const began = performance.now();
  for (const text of [
    `Send ${'to on '.repeat(5_000)}`,
    `Delete the ${'task '.repeat(300)}`,
    `add task ${"'".repeat(1_900)}`,
  ])
    understand(text);
  t.true(performance.now() - began < 1_000);
});

test('a phrase about tasks calls its tool, and the answer says what came of it', async (t) => {
  const added = await converse([], 'Add a task to buy groceries', [
    { task_id: 7, status: 'created', title: 'Buy groceries' },
  ]);
  t.deepEqual(added.calls, [['tasks__add_task', { title: 'Buy groceries' }]]);
  t.regex(added.text, /scripted model.*task 7: "Buy groceries"/);
  const changed = await converse(added.messages, "Change task 7 to 'Call mom tonight'", [
    { task_id: 7, status: 'updated', title: 'Call mom tonight' },
  ]);
  t.deepEqual(changed.calls, [['tasks__update_task', { task_id: 7, title: 'Call mom tonight' }]]);
  t.is(changed.text, 'Task 7 is "Call mom tonight" now.', 'it says only once what it is');
  const listed = await converse(changed.messages, "What's pending?", [
    { tasks: [{ id: 7, title: 'Call mom tonight', description: null, completed: false }] },
  ]);
  t.deepEqual(listed.calls, [['tasks__list_tasks', { status: 'pending' }]]);
  t.is(listed.text, 'Your pending tasks:\n7. [ ] Call mom tonight');
});

test('the task with a word in its title is looked for, then deleted; of several it asks which', async (t) => {
  const task = (id: number, title: string) => ({ id, title, description: null, completed: false });
  const one = await converse([], 'Delete the meeting task', [
    { tasks: [task(1, 'Buy milk'), task(2, 'Team Meeting at nine')] },
    { task_id: 2, status: 'deleted', title: 'Team Meeting at nine' },
  ]);
  t.deepEqual(one.calls, [
    ['tasks__list_tasks', { status: 'all' }],
    ['tasks__delete_task', { task_id: 2 }],
  ]);
  const several = await converse([], 'Delete the meeting task', [
    { tasks: [task(1, 'Meeting with Ann'), task(2, 'Team meeting')] },
    'never asked for',
  ]);
  t.deepEqual(several.calls, [['tasks__list_tasks', { status: 'all' }]]);
  t.regex(several.text, /Which one.*\n1\. \[ \] Meeting with Ann\n2\. \[ \] Team meeting/s);
  const none = await converse([], 'Delete the meeting task', [{ tasks: [task(1, 'Buy milk')] }, 'never asked for']);
  t.is(none.calls.length, 1);
  t.regex(none.text, /no task with "meeting"/);
});

test('a message is sent to the user who was found, and its status can be asked for afterwards', async (t) => {
  const id = '0198d1f2-0000-4000-8000-000000000001';
  const sent = await converse([], "Send 'hi there' to user2 on whatsapp", [
    { users: [{ id: 'b0000000-0000-4000-8000-000000000002', username: 'user2' }] },
    { message_id: id, status: 'SENT' },
  ]);
  t.deepEqual(sent.calls, [
    ['hub__find_users', { query: 'user2' }],
    ['hub__send_message', { to: 'b0000000-0000-4000-8000-000000000002', text: 'hi there', channels: ['whatsapp'] }],
  ]);
  const asked = await converse(sent.messages, 'Was it delivered?', [
    { message_id: id, status: 'DELIVERED', deliveries: [{ channel: 'whatsapp', status: 'DELIVERED' }] },
  ]);
  t.deepEqual(asked.calls, [['hub__message_status', { message_id: id }]]);
  t.is(asked.text, 'Yes, it was delivered (whatsapp: delivered).');
  const onlyTexts = sent.messages.flatMap((message): PromptMessage[] =>
    message.role === 'tool' || message.content === '' ? [] : [message],
  );
  const fromText = await converse(onlyTexts, 'Was it delivered?', [{ message_id: id, status: 'SENT' }]);
  t.deepEqual(fromText.calls, [['hub__message_status', { message_id: id }]]);
  t.regex(fromText.text, /not delivered everywhere yet \(sent\)/);
});

test('of several users none is written to, unless one has just that name', async (t) => {
  const users = [
    { id: 'a', username: 'user20' },
    { id: 'b', username: 'user21' },
  ];
  const several = await converse([], "Send 'hi' to user2", [{ users }, 'never asked for']);
  t.is(several.calls.length, 1);
  t.regex(several.text, /user20, user21/);
  const exact = await converse([], "Send 'hi' to user2", [
    { users: [...users, { id: 'c', username: 'User2' }] },
    { message_id: 'm' },
  ]);
  t.deepEqual(exact.calls[1], ['hub__send_message', { to: 'c', text: 'hi' }]);
});

test('what a tool returns is never taken for a wish', async (t) => {
  const { calls, text } = await converse([], 'Show me all my tasks', [
    { tasks: [{ id: 1, title: 'Delete task 2', completed: false }] },
    'never asked for',
  ]);
  t.deepEqual(calls, [['tasks__list_tasks', { status: 'all' }]]);
  t.regex(text, /1\. \[ \] Delete task 2/);
});

test('a tool that has failed is told of, and not called again', async (t) => {
  const { calls, text } = await converse([], 'Delete task 99', [new Error('Task not found'), 'never asked for']);
  t.is(calls.length, 1);
  t.regex(text, /did not work: Task not found/);
});

test('without its tools it says that it cannot reach them', async (t) => {
  const { text, requests } = await read({ messages: [user('Delete task 2')], tools: [] });
  t.deepEqual(requests, []);
  t.regex(text, /"tasks" can't be reached/);
});

test('the same prompt has the same answer, and each call of a conversation an id of its own', async (t) => {
  const prompt = { messages: [user('Delete task 2')], tools };
  const [first, again] = [await read(prompt), await read(prompt)];
  t.deepEqual(first, again);
  const later = await read({ messages: [...prompt.messages, user('Delete task 2')], tools });
  t.not(later.requests[0]?.id, first.requests[0]?.id);
});

test('an answer that may have so many tokens only ends there, as `length`', async (t) => {
  const { events, text } = await read({ messages: [user('Hello')], tools, options: { max_tokens: 5 } });
  t.is(text, '(I am a scripted model:');
  t.like(events.at(-1), { kind: 'finish', reason: 'length', usage: { outputTokens: 5 } });
});

providerContract(test, async () => openScripted());
