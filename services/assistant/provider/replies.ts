import type { Language } from './phrases.ts';

/** A task, as the scripted model speaks of it. */
export interface TaskLine {
  id: number | string;
  title: string;
  completed: boolean;
}

/** What the scripted model says. */
export interface Replies {
  /** In front of its first answer. */
  notice: string;
  talk: string;
  added: (task: TaskLine) => string;
  listed: (status: 'all' | 'pending' | 'completed', tasks: readonly TaskLine[]) => string;
  completed: (task: TaskLine) => string;
  changed: (task: TaskLine) => string;
  deleted: (task: TaskLine) => string;
  noTaskWith: (words: string) => string;
  whichTask: (words: string, tasks: readonly TaskLine[]) => string;
  sent: (text: string, to: string, channels: readonly string[], messageId: string | undefined) => string;
  noUser: (name: string) => string;
  whichUser: (name: string, names: readonly string[]) => string;
  nothingSent: string;
  /** @param words the statuses */
  delivered: (words: string) => string;
  notDelivered: (words: string) => string;
  called: (tool: string, result: string) => string;
  unknownTool: (tool: string) => string;
  noTool: (server: string) => string;
  failed: (reason: string) => string;
}

const lines = (tasks: readonly TaskLine[]) =>
  tasks.map(({ id, title, completed }) => `\n${id}. [${completed ? 'x' : ' '}] ${title}`).join('');
const about = (messageId: string | undefined, word: string) =>
  messageId === undefined ? '' : ` (${word} ${messageId})`;

export const replies: Record<Language, Replies> = {
  en: {
    notice: '(I am a scripted model: I follow fixed rules, there is no AI behind me.)',
    talk: `I keep your tasks and send messages for you. Try: "Add a task to buy groceries", "Show me all my tasks", "What's pending?", "What have I completed?", "Mark task 3 as complete", "Change task 1 to 'Call mom tonight'", "Delete task 2", "Send 'hi there' to user2 on whatsapp" or "Was it delivered?".`,
    added: ({ id, title }) => `I have added task ${id}: "${title}".`,
    listed: (status, tasks) => {
      const kind = { all: 'tasks', pending: 'pending tasks', completed: 'completed tasks' }[status];
      return tasks.length === 0 ? `You have no ${kind}.` : `Your ${kind}:${lines(tasks)}`;
    },
    completed: ({ id, title }) => `Task ${id}, "${title}", is complete now.`,
    changed: ({ id, title }) => `Task ${id} is "${title}" now.`,
    deleted: ({ id, title }) => `I have deleted task ${id}, "${title}".`,
    noTaskWith: (words) => `You have no task with "${words}" in its title.`,
    whichTask: (words, tasks) => `Several tasks have "${words}" in their titles. Which one do you mean?${lines(tasks)}`,
    sent: (text, to, channels, messageId) =>
      `I have sent '${text}' to ${to}${channels.length > 0 ? ` on ${channels.join(' and ')}` : ''}${about(messageId, 'message')}.`,
    noUser: (name) => `I have found nobody who is called "${name}".`,
    whichUser: (name, names) => `Several users match "${name}": ${names.join(', ')}. Which one do you mean?`,
    nothingSent: 'I have not sent anything in this conversation yet.',
    delivered: (words) => `Yes, it was delivered (${words}).`,
    notDelivered: (words) => `It is not delivered everywhere yet (${words}).`,
    called: (tool, result) => `${tool} has answered: ${result}`,
    unknownTool: (tool) => `I have no tool that is called "${tool}".`,
    noTool: (server) => `I can't do that now: the tools of "${server}" can't be reached.`,
    failed: (reason) => `That did not work: ${reason}`,
  },
  es: {
    notice: '(Soy un modelo con guion (scripted): sigo reglas fijas, no hay ninguna IA detrás.)',
    talk: 'Llevo tus tareas y envío mensajes por ti. Prueba: "Añade una tarea para comprar comida", "Muéstrame todas mis tareas", "¿Qué está pendiente?", "¿Qué he completado?", "Marca la tarea 3 como completada", "Cambia la tarea 1 a \'Llamar a mamá\'", "Borra la tarea 2", "Envía \'hola\' a user2 por whatsapp" o "¿Se entregó?".',
    added: ({ id, title }) => `He añadido la tarea ${id}: "${title}".`,
    listed: (status, tasks) => {
      const kind = { all: 'tareas', pending: 'tareas pendientes', completed: 'tareas completadas' }[status];
      return tasks.length === 0 ? `No tienes ${kind}.` : `Tus ${kind}:${lines(tasks)}`;
    },
    completed: ({ id, title }) => `La tarea ${id}, "${title}", está completada.`,
    changed: ({ id, title }) => `La tarea ${id} es ahora "${title}".`,
    deleted: ({ id, title }) => `He borrado la tarea ${id}, "${title}".`,
    noTaskWith: (words) => `No tienes ninguna tarea con "${words}" en el título.`,
    whichTask: (words, tasks) => `Varias tareas tienen "${words}" en el título. ¿Cuál es?${lines(tasks)}`,
    sent: (text, to, channels, messageId) =>
      `He enviado '${text}' a ${to}${channels.length > 0 ? ` por ${channels.join(' y ')}` : ''}${about(messageId, 'mensaje')}.`,
    noUser: (name) => `No he encontrado a nadie que se llame "${name}".`,
    whichUser: (name, names) => `Hay varios usuarios con "${name}": ${names.join(', ')}. ¿Cuál es?`,
    nothingSent: 'Todavía no he enviado nada en esta conversación.',
    delivered: (words) => `Sí, se ha entregado (${words}).`,
    notDelivered: (words) => `Todavía no se ha entregado en todas partes (${words}).`,
    called: (tool, result) => `${tool} ha respondido: ${result}`,
    unknownTool: (tool) => `No tengo ninguna herramienta que se llame "${tool}".`,
    noTool: (server) => `Ahora no puedo hacerlo: no alcanzo las herramientas de "${server}".`,
    failed: (reason) => `No ha funcionado: ${reason}`,
  },
  pt: {
    notice: '(Sou um modelo com roteiro (scripted): sigo regras fixas, não há nenhuma IA por trás.)',
    talk: 'Cuido das suas tarefas e envio mensagens por você. Tente: "Adicione uma tarefa para comprar comida", "Mostre todas as minhas tarefas", "O que está pendente?", "O que eu já concluí?", "Marque a tarefa 3 como concluída", "Mude a tarefa 1 para \'Ligar para a mãe\'", "Apague a tarefa 2", "Envie \'oi\' para user2 no whatsapp" ou "Foi entregue?".',
    added: ({ id, title }) => `Adicionei a tarefa ${id}: "${title}".`,
    listed: (status, tasks) => {
      const kind = { all: 'tarefas', pending: 'tarefas pendentes', completed: 'tarefas concluídas' }[status];
      return tasks.length === 0 ? `Você não tem ${kind}.` : `Suas ${kind}:${lines(tasks)}`;
    },
    completed: ({ id, title }) => `A tarefa ${id}, "${title}", está concluída.`,
    changed: ({ id, title }) => `A tarefa ${id} agora é "${title}".`,
    deleted: ({ id, title }) => `Apaguei a tarefa ${id}, "${title}".`,
    noTaskWith: (words) => `Você não tem nenhuma tarefa com "${words}" no título.`,
    whichTask: (words, tasks) => `Várias tarefas têm "${words}" no título. Qual delas?${lines(tasks)}`,
    sent: (text, to, channels, messageId) =>
      `Enviei '${text}' para ${to}${channels.length > 0 ? ` por ${channels.join(' e ')}` : ''}${about(messageId, 'mensagem')}.`,
    noUser: (name) => `Não encontrei ninguém que se chame "${name}".`,
    whichUser: (name, names) => `Há vários usuários com "${name}": ${names.join(', ')}. Qual deles?`,
    nothingSent: 'Ainda não enviei nada nesta conversa.',
    delivered: (words) => `Sim, foi entregue (${words}).`,
    notDelivered: (words) => `Ainda não foi entregue em toda parte (${words}).`,
    called: (tool, result) => `${tool} respondeu: ${result}`,
    unknownTool: (tool) => `Não tenho nenhuma ferramenta que se chame "${tool}".`,
    noTool: (server) => `Não consigo fazer isso agora: não alcanço as ferramentas de "${server}".`,
    failed: (reason) => `Não funcionou: ${reason}`,
  },
};
