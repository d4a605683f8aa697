/** The languages of the scripted model. */
export type Language = 'en' | 'es' | 'pt';

/** A request of the user that the scripted model understands. */
export type Intent =
  | { kind: 'add'; title: string }
  | { kind: 'list'; status: 'all' | 'pending' | 'completed' }
  | { kind: 'complete'; taskId: number }
  | { kind: 'change'; taskId: number; title: string }
  | { kind: 'delete'; taskId: number }
  | { kind: 'deleteByTitle'; words: string }
  | { kind: 'send'; text: string; to: string; channels: string[] }
  | { kind: 'status' }
  | { kind: 'call'; tool: string; arguments: string }
  | { kind: 'talk' };

type Slots = Record<string, string | undefined>;

interface Phrase {
  language: Language;
  pattern: RegExp;
  read: (slots: Slots) => Intent;
}

/** Quotation marks are made straight before. */
const quoted = (name: string) => `(?:'(?<${name}Single>.+)'|"(?<${name}Double>.+)"|(?<${name}Bare>.+?))`;
const quotedIn = (slots: Slots, name: string) =>
  (slots[`${name}Single`] ?? slots[`${name}Double`] ?? slots[`${name}Bare`] ?? '').trim();

const add = (slots: Slots): Intent => ({ kind: 'add', title: titleFrom(quotedIn(slots, 'title')) });
const list = (status: 'all' | 'pending' | 'completed') => (): Intent => ({ kind: 'list', status });
const complete = ({ id }: Slots): Intent => ({ kind: 'complete', taskId: Number(id) });
const change = (slots: Slots): Intent => ({
  kind: 'change',
  taskId: Number(slots['id']),
  title: titleFrom(quotedIn(slots, 'title')),
});
const remove = ({ id }: Slots): Intent => ({ kind: 'delete', taskId: Number(id) });
const removeByTitle = (slots: Slots): Intent => ({ kind: 'deleteByTitle', words: quotedIn(slots, 'words') });
const send = (slots: Slots): Intent => ({
  kind: 'send',
  text: quotedIn(slots, 'text'),
  to: slots['to'] ?? '',
  channels: (slots['channels'] ?? '')
    .split(/[\s,]+(?:(?:and|y|e)\s+)?/i)
    .filter((channel) => channel !== '')
    .map((channel) => channel.toLowerCase()),
});
const status = (): Intent => ({ kind: 'status' });
const call = ({ tool = '', given }: Slots): Intent => ({ kind: 'call', tool, arguments: given ?? '{}' });

const channels = String.raw`(?<channels>[\w-]+(?:(?:\s*,\s*|\s+(?:and|y|e)\s+)[\w-]+)*)`;
const number = String.raw`(?:#|number |no\.? |n\.?º |número )?(?<id>\d{1,15})`;

/** The first one that matches a text counts. */
const phrases: readonly Phrase[] = [
  phrase(
    'en',
    `(?:add|create|make) (?:me )?(?:a |another )?(?:new )?(?:task|todo|to-do)(?: to| for|:)? ${quoted('title')}`,
    add,
  ),
  phrase(
    'en',
    `(?:i need to remember|i have to remember|i must remember|remind me|remember|don't let me forget) to ${quoted('title')}`,
    add,
  ),
  phrase(
    'es',
    `(?:añade|añadir|agrega|agregar|crea|crear|adiciona|apunta)(?:me)? (?:una )?(?:nueva )?tarea(?: nueva)?(?: para| de|:)? ${quoted('title')}`,
    add,
  ),
  phrase('es', `(?:necesito|tengo que|debo) (?:recordar|acordarme de)(?: que tengo que)? ${quoted('title')}`, add),
  phrase('es', `(?:recuérdame|recuerdame)(?: que tengo que)? ${quoted('title')}`, add),
  phrase(
    'pt',
    `(?:adicione|adiciona|adicionar|acrescente|crie|cria|criar)(?:-me)? (?:uma )?(?:nova )?tarefa(?: nova)?(?: para| de|:)? ${quoted('title')}`,
    add,
  ),
  phrase('pt', `(?:eu )?(?:preciso|tenho que|tenho de|devo)(?: me)? lembrar(?:-me)?(?: de)? ${quoted('title')}`, add),
  phrase('pt', `(?:lembre-me|me lembre|lembra-me)(?: de)? ${quoted('title')}`, add),

  phrase(
    'en',
    '(?:(?:show|list|give|tell)(?: me)? )?(?:all )?(?:of )?(?:my|the) (?:pending|open) tasks',
    list('pending'),
  ),
  phrase(
    'en',
    `(?:what's|whats|what is|what's still|what is still|which tasks are) (?:pending|open|left)(?: to do)?`,
    list('pending'),
  ),
  phrase('en', 'what do i (?:still )?have to do', list('pending')),
  phrase(
    'es',
    '(?:qué|que|cuáles|cuales) (?:está|esta|están|estan|hay|tengo|queda|quedan|tareas tengo|tareas están|tareas hay)(?: de)? (?:pendientes?|por hacer)',
    list('pending'),
  ),
  phrase('es', '(?:qué|que) (?:me )?(?:falta|queda)(?: por hacer)?', list('pending')),
  phrase(
    'es',
    '(?:muéstrame|muestrame|enséñame|ensename|lista|dime)(?: todas)? (?:mis|las) tareas pendientes',
    list('pending'),
  ),
  phrase(
    'pt',
    '(?:o que|que|quais)(?: é que)?(?: eu)? (?:está|esta|estão|estao|há|tenho|tarefas tenho|tarefas estão|tarefas há)(?: de)? (?:pendentes?|por fazer)',
    list('pending'),
  ),
  phrase('pt', '(?:o que|que)(?: me)? (?:falta|resta)(?: fazer| por fazer)?', list('pending')),
  phrase(
    'pt',
    '(?:mostre|mostra|mostrar|liste|lista)(?:-me)?(?: todas)?(?: as)?(?: minhas)? tarefas pendentes',
    list('pending'),
  ),

  phrase(
    'en',
    '(?:(?:show|list|give|tell)(?: me)? )?(?:all )?(?:of )?(?:my|the) (?:completed|finished|done) tasks',
    list('completed'),
  ),
  phrase('en', 'what have i (?:already )?(?:completed|finished|done)', list('completed')),
  phrase('en', 'which tasks (?:have i|are|did i) (?:completed?|finish(?:ed)?|done)', list('completed')),
  phrase(
    'es',
    '(?:qué|que)(?: tareas)? (?:ya )?(?:he|tengo) (?:ya )?(?:completad[oa]s?|terminad[oa]s?|hech[oa]s?|acabad[oa]s?)',
    list('completed'),
  ),
  phrase('es', '(?:qué|que)(?: tareas)? (?:ya )?(?:completé|complete|terminé|termine|hice)', list('completed')),
  phrase(
    'es',
    '(?:muéstrame|muestrame|enséñame|ensename|lista|dime)(?: todas)? (?:mis|las) tareas (?:completadas|terminadas|hechas)',
    list('completed'),
  ),
  phrase(
    'pt',
    '(?:o que|que tarefas|quais tarefas)(?: é que)?(?: eu)?(?: já)?(?: eu)? (?:concluí|conclui|completei|terminei|fiz|foi concluído|foi feito|tenho concluído)',
    list('completed'),
  ),
  phrase(
    'pt',
    '(?:mostre|mostra|mostrar|liste|lista)(?:-me)?(?: todas)?(?: as)?(?: minhas)? tarefas (?:concluídas|concluidas|completas|feitas|terminadas)',
    list('completed'),
  ),

  phrase('en', '(?:show|list|give|tell)(?: me)?(?: all)?(?: of)? (?:my |the )?(?:tasks|todos|to-dos)', list('all')),
  phrase('en', `(?:what are|what're) (?:all )?(?:my|the) tasks`, list('all')),
  phrase(
    'es',
    '(?:muéstrame|muestrame|muestra|enséñame|ensename|enseña|lista|listar|dime|ver)(?: todas)? (?:mis|las) tareas',
    list('all'),
  ),
  phrase('es', '(?:cuáles|cuales) son(?: todas)? mis tareas', list('all')),
  phrase(
    'pt',
    '(?:mostre|mostra|mostrar|me mostre|liste|lista|listar|ver)(?:-me)?(?: todas)?(?: as)?(?: minhas)? tarefas',
    list('all'),
  ),
  phrase('pt', 'quais são(?: todas)?(?: as)? minhas tarefas', list('all')),

  phrase('en', `mark (?:the )?task ${number} (?:as )?(?:complete|completed|done|finished)`, complete),
  phrase('en', `(?:complete|finish|check off) (?:the )?task ${number}`, complete),
  phrase('en', `task ${number} is (?:complete|completed|done|finished)`, complete),
  phrase(
    'es',
    `(?:marca|marcar|marque) (?:la )?tarea ${number} como (?:completada|completa|hecha|terminada|lista)`,
    complete,
  ),
  phrase('es', `(?:completa|completar|termina|terminar) (?:la )?tarea ${number}`, complete),
  phrase(
    'pt',
    `(?:marque|marca|marcar) (?:a )?tarefa ${number} como (?:concluída|concluida|completa|completada|feita|terminada|pronta)`,
    complete,
  ),
  phrase('pt', `(?:conclua|concluir|complete|completar|termine|terminar) (?:a )?tarefa ${number}`, complete),

  phrase(
    'en',
    `(?:change|rename|update|edit) (?:the )?(?:title of )?task ${number} (?:to|into) ${quoted('title')}`,
    change,
  ),
  phrase(
    'es',
    `(?:cambia|cambiar|cambie|renombra|actualiza|modifica) (?:el título de )?(?:la )?tarea ${number} (?:a|por|en) ${quoted('title')}`,
    change,
  ),
  phrase(
    'pt',
    `(?:mude|muda|mudar|altere|altera|alterar|troque|renomeie|atualize) (?:o título da )?(?:a )?tarefa ${number} (?:para|por) ${quoted('title')}`,
    change,
  ),

  phrase('en', `(?:delete|remove|erase) (?:the )?task ${number}`, remove),
  phrase('es', `(?:borra|borrar|borre|elimina|eliminar|elimine|quita) (?:la )?tarea ${number}`, remove),
  phrase(
    'pt',
    `(?:exclua|excluir|exclui|apague|apaga|apagar|delete|deletar|elimine|elimina|remova|remove) (?:a )?tarefa ${number}`,
    remove,
  ),
  phrase('en', `(?:delete|remove|erase) (?:the |my )?${quoted('words')} task`, removeByTitle),
  phrase(
    'en',
    `(?:delete|remove|erase) (?:the |my )?task (?:about |with |called |named )?(?:the )?${quoted('words')}`,
    removeByTitle,
  ),
  phrase(
    'es',
    `(?:borra|borrar|borre|elimina|eliminar|elimine|quita) (?:la |mi )?tarea (?:sobre |de |del |con |llamada )?(?:la |el |los |las )?${quoted('words')}`,
    removeByTitle,
  ),
  phrase(
    'pt',
    `(?:exclua|excluir|exclui|apague|apaga|apagar|delete|deletar|elimine|elimina|remova|remove) (?:a |minha )?tarefa (?:sobre |de |da |do |com |chamada )?(?:a |o |as |os )?${quoted('words')}`,
    removeByTitle,
  ),

  phrase(
    'en',
    String.raw`(?:send|text|message) ${quoted('text')} to @?(?<to>\S+?)(?: (?:on|over|via|by|through|with) ${channels})?`,
    send,
  ),
  phrase(
    'es',
    String.raw`(?:envía|envia|enviar|envíale|enviale|envíe|manda|mándale|mandale) ${quoted('text')} (?:a|para) @?(?<to>\S+?)(?: (?:por|en|vía|via|mediante) ${channels})?`,
    send,
  ),
  phrase(
    'pt',
    String.raw`(?:envie|envia|enviar|mande|manda|mandar) ${quoted('text')} (?:para|a|ao|à) (?:o |a )?@?(?<to>\S+?)(?: (?:no|na|por|pelo|pela|via|em) ${channels})?`,
    send,
  ),

  phrase(
    'en',
    '(?:was|is|has|did) (?:it|that|my message|the message)(?: been)? (?:delivered|arrived?|sent|read|get there)',
    status,
  ),
  phrase(
    'en',
    "(?:what is|what's) the (?:delivery )?status(?: of (?:it|that|my (?:last )?message|the (?:last )?message))?",
    status,
  ),
  phrase(
    'es',
    '(?:se|fue|ha sido|ya se|ya fue|lo|la|le)(?: ha)? (?:entregó|entrego|entregado|entregada|entregaron|llegó|llego|recibió|recibio)',
    status,
  ),
  phrase('es', '(?:ha|ya ha) llegado', status),
  phrase('pt', '(?:já |ja )?(?:foi|chegou|está|esta)(?: a mensagem)?(?: já)?(?: entregue| recebid[ao])?', status),
  phrase('pt', '(?:a mensagem|ela|ele) (?:já )?(?:foi entregue|chegou)', status),

  phrase('en', String.raw`(?:call|use)(?: the)?(?: tool)? (?<tool>[\w.-]+)(?: with (?<given>\{.*\}))?`, call),
];

function phrase(language: Language, pattern: string, read: (slots: Slots) => Intent): Phrase {
  const please = { en: '(?:please,? |can you |could you )?', es: '(?:por favor,? )?', pt: '(?:por favor,? )?' }[
    language
  ];
  const thanks = { en: '(?:,? please)?', es: '(?:,? por favor)?', pt: '(?:,? por favor)?' }[language];
  return { language, read, pattern: new RegExp(`^${please}${pattern}${thanks}$`, 'isu') };
}

/** Longer texts are not matched, which bounds the time of the patterns. */
const maxPhraseLength = 2_000;

/** The intent and the language of a user's text. */
export function understand(text: string): { intent: Intent; language: Language } {
  const plain = text
    .normalize('NFC')
    .replaceAll(/[‘’]/g, "'")
    .replaceAll(/[“”«»]/g, '"')
    .replaceAll(/\s+/g, ' ')
    .trim();
  if (plain.length <= maxPhraseLength) {
    const bare = plain.replace(/^[¿¡\s]+/, '').replace(/[\s.!?…]+$/, '');
    for (const { language, pattern, read } of phrases) {
      const match = pattern.exec(bare);
      if (match !== null) return { intent: read(match.groups ?? {}), language };
    }
  }
  return { intent: { kind: 'talk' }, language: languageOf(plain.slice(0, maxPhraseLength)) };
}

const spanish =
  /[¿¡ñ]|(?:^|\s)(?:hola|gracias|buenos|buenas|qué|ayuda|puedes|tarea|tareas|eres|quién|cómo|estás)(?=\W|$)/iu;
const portuguese =
  /[ãõç]|(?:^|\s)(?:olá|oi|obrigad[oa]|bom|boa|ajuda|você|pode|tarefa|tarefas|quem|como|tudo)(?=\W|$)/iu;

function languageOf(text: string): Language {
  if (spanish.test(text)) return 'es';
  return portuguese.test(text) ? 'pt' : 'en';
}

/** A title as people write it: with a capital letter in front, and no full stop. */
function titleFrom(text: string): string {
  const bare = text.trim().replace(/[\s.!]+$/, '');
  const [first = ''] = bare;
  return first.toLocaleUpperCase() + bare.slice(first.length);
}
