import { useSignal } from '@preact/signals';
import { useRef } from 'preact/hooks';
import { isRefused, RefusedError } from '#client';
import type { InvokeToolCode, InvokeToolResponse, Tool } from '#client/tools';
import { Empty, Failure, Form, useAction } from '../shell/components.tsx';
import { urlOf } from '../shell/router.ts';
import { client, nameOfMine } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';
import { Json, LinesField, Title } from './fields.tsx';
import { countOf, durationOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { ListEnd, listOrSearch, pageAsked, SearchField, wordsSearched } from './paging.tsx';

/** `/console/dashboard/tools`: those that can be used; `/<id>`: one, to try it out. */
export function Tools({ path: [id] }: { path: readonly string[] }) {
  return id === undefined ? <ToolList /> : <TryOut id={id} key={id} />;
}

function ToolList() {
  const tools = useLoaded(
    (signal) =>
      listOrSearch(
        (page) => client.tool.listTools(page, { signal }),
        ({ name, description }) => `${name} ${description}`,
      ),
    [wordsSearched(), pageAsked().offset],
  );
  return (
    <>
      <Title>Tools</Title>
      <div class="narrow">
        <SearchField label="Search" />
      </div>
      <Shown of={tools} what="the tools">
        {(list) =>
          list.entries.length === 0 && list.total === 0 ? (
            <Empty title="No tools yet">
              <p>An administrator adds them.</p>
            </Empty>
          ) : (
            <>
              <ul class="entries">
                {list.entries.map(({ id, name, description }) => (
                  <li key={id}>
                    <a class="entry" href={urlOf('dashboard', 'tools', id)}>
                      <strong dir="auto">{name}</strong>
                      <span class="quiet clipped" dir="auto">
                        {description}
                      </span>
                    </a>
                  </li>
                ))}
              </ul>
              <ListEnd list={list} of="tools" />
            </>
          )
        }
      </Shown>
    </>
  );
}

function TryOut({ id }: { id: string }) {
  const tool = useLoaded((signal) => client.tool.getTool({ tool_id: id }, { signal }));
  return (
    <>
      <Title back={{ url: urlOf('dashboard', 'tools'), title: 'the tools' }}>{tool.value.value?.name ?? 'Tool'}</Title>
      <Shown of={tool} what="the tool">
        {(found) => <TryOutForm tool={found} />}
      </Shown>
    </>
  );
}

/** Tools have no description of their input that a program could read, so one begins with what the hub's own take. */
const firstInput = '{\n  "text": "Hello"\n}';

class WrongInput extends Error {}

function readInput(text: string): Record<string, unknown> {
  let input: unknown;
  try {
    input = JSON.parse(text);
  } catch (error) {
    throw new WrongInput(`This is not JSON: ${error instanceof Error ? error.message : 'it can’t be read'}.`);
  }
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw new WrongInput('It has to be an object, in braces: {"text": "Hello"}.');
  }
  return input as Record<string, unknown>;
}

function TryOutForm({ tool: { id, description } }: { tool: Tool }) {
  const draftName = nameOfMine(`tool.${id}`);
  const input = useSignal((kept.get(draftName) as string | undefined) ?? firstInput);
  const result = useSignal<InvokeToolResponse | undefined>(undefined);
  const isStopped = useSignal(false);
  const waiting = useRef<AbortController | undefined>(undefined);
  const action = useAction();
  const { error, isRunning } = action;
  const submit = () =>
    action.run(async () => {
      result.value = undefined;
      isStopped.value = false;
      const parsed = readInput(input.peek());
      const own = (waiting.current = new AbortController());
      try {
        result.value = await client.tool.invokeTool({ tool_id: id, input: parsed }, { signal: own.signal });
      } catch (failure) {
        if (!own.signal.aborted) throw failure;
        isStopped.value = true;
      }
    });
  return (
    <>
      <p dir="auto">{description}</p>
      <Form class="stack" submit={submit}>
        <LinesField
          label="Input"
          value={input}
          rows={8}
          isCode
          required
          hint="A JSON object. The tool is sent it as it is, and nothing about you."
          wrong={error.value instanceof WrongInput ? error.value.message : action.wrong('input')}
          changed={(value) => kept.set(draftName, value === firstInput ? undefined : value)}
        />
        <div class="row">
          <button class="button main" disabled={isRunning.value}>
            {isRunning.value ? 'Running…' : 'Run'}
          </button>
          {isRunning.value && (
            <button type="button" class="button" onClick={() => waiting.current?.abort()}>
              Stop waiting
            </button>
          )}
        </div>
        {!(error.value instanceof WrongInput) && <Refusal of={action} />}
      </Form>
      <div role="status">
        {isStopped.value && (
          <p class="notice warn">
            You did not wait for the answer. The tool may still work, and what it uses is counted.
          </p>
        )}
        {result.value !== undefined && (
          <p class="row apart">
            <span>
              Answered after {durationOf(result.value.duration_ms)}, for {countOf(result.value.tokens_used, 'token')}.
            </span>
            <a href={`${urlOf('dashboard', 'usage')}?${new URLSearchParams({ tool: id }).toString()}`}>
              Usage of this tool
            </a>
          </p>
        )}
      </div>
      {result.value !== undefined && <Json label="Output" value={result.value.output} />}
    </>
  );
}

/** What it means that a call was refused. */
const words: Partial<Record<InvokeToolCode, string>> = {
  NOT_FOUND: 'This tool is not there any more.',
  TOOL_UNAVAILABLE: 'The tool can’t be reached, or it does not take this input. The call has cost nothing.',
  TOOL_TIMEOUT: 'The tool has not answered in time. The call has cost nothing.',
  CIRCUIT_OPEN: 'The tool has failed several times in a row, and is left alone for a while.',
};

function Refusal({ of: action }: { of: ReturnType<typeof useAction> }) {
  const { value } = action.error;
  if (isRefused(value, 'SUBSCRIPTION_REQUIRED', 'TOKEN_LIMIT_EXCEEDED')) {
    return (
      <p class="notice warn" role="alert">
        {value.code === 'SUBSCRIPTION_REQUIRED'
          ? 'It takes a plan to use tools.'
          : 'All tokens of this period are used.'}
        <a href={urlOf('dashboard', 'plan')}>Choose a plan</a>
      </p>
    );
  }
  const own = value instanceof RefusedError ? words[value.code as InvokeToolCode] : undefined;
  if (own === undefined) return <Failure of={action} fields={['input']} />;
  const wait = isRefused(value, 'CIRCUIT_OPEN') ? value.retryAfter : undefined;
  return (
    <p class="notice bad" role="alert">
      {own}
      {wait !== undefined && ` Try again in ${Math.ceil(wait)} s.`}
    </p>
  );
}
