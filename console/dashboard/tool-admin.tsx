import { useSignal } from '@preact/signals';
import { isRefused } from '#client';
import type { ManagedTool } from '#client/tools';
import { Dialog, Empty, Failure, Field, Form, useAction } from '../shell/components.tsx';
import { client } from '../shell/session.ts';
import { Confirm, LinesField, Mark, Table, Title } from './fields.tsx';
import { dateOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices, ListEnd, listOrSearch, pageAsked, SearchField, wordsSearched } from './paging.tsx';

const states = [
  ['all', 'All'],
  ['active', 'Active'],
  ['inactive', 'Inactive'],
] as const;

/** All tools, for administrators. */
export function ToolAdmin() {
  const state = chosenOf('state', states);
  const tools = useLoaded(
    (signal) =>
      listOrSearch(
        (page) =>
          client.toolAdmin.listAllTools(
            { ...page, ...(state === 'all' ? {} : { is_active: state === 'active' }) },
            { signal },
          ),
        ({ name, description, api_endpoint }) => `${name} ${description} ${api_endpoint}`,
      ),
    [state, wordsSearched(), pageAsked().offset],
  );
  /** The one that is changed; null for a new one. */
  const edited = useSignal<ManagedTool | null | undefined>(undefined);
  const deleted = useSignal<ManagedTool | undefined>(undefined);
  const toggling = useAction();
  const toggle = ({ id, is_active }: ManagedTool) =>
    toggling.run(async () => {
      await client.toolAdmin.updateTool({ tool_id: id, is_active: !is_active });
      await tools.load();
    });
  return (
    <>
      <Title
        beside={
          <button type="button" class="button main" onClick={() => (edited.value = null)}>
            New tool
          </button>
        }
      >
        All tools
      </Title>
      <div class="row apart">
        <div class="narrow">
          <SearchField label="Search" />
        </div>
        <Choices label="State" name="state" choices={states} />
      </div>
      <Failure of={toggling} />
      <Shown of={tools} what="the tools">
        {(list) => (
          <>
            {list.entries.length === 0 && list.total === 0 ? (
              <Empty title="No tools here">
                <p>A tool is whatever answers a POST of JSON with JSON.</p>
              </Empty>
            ) : (
              <Table label="Tools" heads={['Name', 'Endpoint', 'State', 'Added', 'Actions']}>
                {list.entries.map((tool) => (
                  <tr key={tool.id} data-tool={tool.name}>
                    <th scope="row">
                      <span dir="auto">{tool.name}</span>
                      <br />
                      <span class="quiet small clipped" dir="auto">
                        {tool.description}
                      </span>
                    </th>
                    <td class="id">{tool.api_endpoint}</td>
                    <td>
                      <Mark is={tool.is_active ? 'good' : 'quiet'}>{tool.is_active ? 'Active' : 'Inactive'}</Mark>
                    </td>
                    <td>{dateOf(tool.created_at)}</td>
                    <td>
                      <div class="row actions">
                        <button type="button" class="button" onClick={() => (edited.value = tool)}>
                          Change<span class="hidden-text"> {tool.name}</span>
                        </button>
                        <button
                          type="button"
                          class="button"
                          disabled={toggling.isRunning.value}
                          onClick={() => void toggle(tool)}
                        >
                          {tool.is_active ? 'Deactivate' : 'Activate'}
                          <span class="hidden-text"> {tool.name}</span>
                        </button>
                        <button type="button" class="button danger" onClick={() => (deleted.value = tool)}>
                          Delete<span class="hidden-text"> {tool.name}</span>
                        </button>
                      </div>
                    </td>
                  </tr>
                ))}
              </Table>
            )}
            <ListEnd list={list} of="tools" />
          </>
        )}
      </Shown>
      {edited.value !== undefined && (
        <ToolForm
          tool={edited.value}
          close={() => (edited.value = undefined)}
          done={() => {
            edited.value = undefined;
            void tools.load();
          }}
        />
      )}
      {deleted.value !== undefined && (
        <Confirm
          title={`Delete ${deleted.value.name}?`}
          verb="Delete it"
          isDangerous
          work={async () => {
            await client.toolAdmin.deleteTool({ tool_id: deleted.peek()!.id });
            await tools.load();
          }}
          close={() => (deleted.value = undefined)}
        >
          <p>That can’t be taken back. What was used of it stays in everybody’s usage, and its name is free again.</p>
        </Confirm>
      )}
    </>
  );
}

function ToolForm({ tool, close, done }: { tool: ManagedTool | null; close: () => void; done: () => void }) {
  const name = useSignal(tool?.name ?? '');
  const description = useSignal(tool?.description ?? '');
  const endpoint = useSignal(tool?.api_endpoint ?? '');
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      const wanted = { name: name.value, description: description.value, api_endpoint: endpoint.value.trim() };
      if (tool === null) await client.toolAdmin.createTool(wanted);
      else await client.toolAdmin.updateTool({ tool_id: tool.id, ...wanted });
      done();
    });
  const isTaken = isRefused(action.error.value, 'TOOL_NAME_TAKEN');
  return (
    <Dialog title={tool === null ? 'New tool' : `Change ${tool.name}`} close={close}>
      <Form submit={submit}>
        <Field
          label="Name"
          value={name}
          required
          wrong={isTaken ? 'Another tool has this name.' : action.wrong('name')}
        />
        <LinesField label="Description" value={description} required wrong={action.wrong('description')} />
        <Field
          label="Endpoint"
          value={endpoint}
          type="url"
          required
          hint="It is sent the input by POST, and answers with JSON."
          placeholder="https://tools.example.com/translate"
          wrong={action.wrong('api_endpoint')}
        />
        {!isTaken && <Failure of={action} fields={['name', 'description', 'api_endpoint']} />}
        <div>
          <button class="button main" disabled={action.isRunning.value}>
            {tool === null ? 'Add the tool' : 'Save'}
          </button>
        </div>
      </Form>
    </Dialog>
  );
}
