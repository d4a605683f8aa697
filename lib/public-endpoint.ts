import { lookup } from 'node:dns/promises';
import ipaddr from 'ipaddr.js';
import { isNetwork, Networks } from './client-address.ts';
import { list } from './config.ts';
import { within } from './deadline.ts';

/** An endpoint, and the addresses to connect to for this call. */
export interface Destination {
  url: URL;
  /** At least one, each of them checked. */
  addresses: readonly string[];
}

/** What is wrong with an endpoint: a rule, for programs, and what it is, for people. */
export interface EndpointProblem {
  rule: 'uri' | 'public_address';
  description: string;
}

/**
 * Where endpoints may be that users name: a guard against server-side request forgery (SSRF). A host is looked up once for each call, all of
 * its addresses are checked, and the call connects to one of those and to no other (`pinned-connections.ts`).
 */
export interface Endpoints {
  /** What is wrong with an endpoint, as far as that can be told without looking up its host. */
  problem(endpoint: string): EndpointProblem | undefined;
  /**
   * Looks up the host of an endpoint, once.
   *
   * @throws EndpointRefused if it has an address that may not be asked
   * @throws Error if it has none, or can't be looked up
   */
  locate(endpoint: string): Promise<Destination>;
}

/** All addresses of a host. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** The endpoint has an address that isn't allowed. Nothing was sent there. */
export class EndpointRefused extends Error {}

const hostPattern = /^[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?$/i;

/** A setting that names hosts, addresses and networks that may be asked though they aren't public. */
export function allowedHosts() {
  return list().superRefine((hosts, context) => {
    for (const host of hosts.filter((each) => !isNetwork(each) && !hostPattern.test(each))) {
      context.addIssue({
        code: 'custom',
        message: `has ${JSON.stringify(host)}, which is neither a host, an IP address nor a network (10.0.0.0/8)`,
      });
    }
  });
}

/** What may be asked on a laptop where nothing is said. */
export const laptopHosts: readonly string[] = ['127.0.0.0/8', '::1'];

/** Characters that a URL's parser removes or encodes, so that people who read the endpoint wouldn't see them. */
// eslint-disable-next-line no-control-regex -- these are meant
const invisible = /[\u0000-\u0020\u007f]/;
const lookupTimeoutMs = 5_000;

/** @param allowed names, addresses and networks that may be asked though they aren't public */
export function openEndpoints(allowed: readonly string[], resolve: Resolve = resolveBySystem): Endpoints {
  const networks = new Networks(allowed.filter(isNetwork));
  const names = new Set(allowed.filter((entry) => !isNetwork(entry)).map(plainName));
  const mayBeAsked = (address: string) => networks.has(address) || isPublic(address);

  return {
    problem(endpoint) {
      const url = URL.parse(endpoint);
      if (url === null || !/^https?:$/.test(url.protocol) || invisible.test(endpoint))
        return notA('must be an http or https URL');
      if (url.username !== '' || url.password !== '') return notA('must not have a username or password in it');
      const address = literalOf(url);
      return address === undefined || names.has(plainName(url.hostname)) || mayBeAsked(address)
        ? undefined
        : { rule: 'public_address', description: 'must not be at an address that is private or reserved' };
    },

    async locate(endpoint) {
      const url = new URL(endpoint);
      const literal = literalOf(url);
      const addresses = literal === undefined ? await lookedUp(url.hostname, resolve) : [literal];
      if (addresses.length === 0) throw new Error(`${url.hostname} has no address`);
      // One forbidden address is enough: an attacker may have added the others to get it accepted.
      if (!names.has(plainName(url.hostname)) && !addresses.every(mayBeAsked)) {
        throw new EndpointRefused(`${url.hostname} is at ${addresses.join(', ')}`);
      }
      return { url, addresses };
    },
  };
}

const notA = (description: string): EndpointProblem => ({ rule: 'uri', description });

async function lookedUp(host: string, resolve: Resolve): Promise<readonly string[]> {
  return within(
    lookupTimeoutMs,
    resolve(host),
    () => new Error(`${host} was not looked up within ${lookupTimeoutMs} ms`),
  );
}

async function resolveBySystem(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
}

/** Names are compared without case, and without the dot at the end of a fully qualified one. */
function plainName(host: string): string {
  return host.toLowerCase().replace(/\.$/, '');
}

/**
 * The address that a URL names in place of a host; undefined if it names a host. Whatever notation it had (decimal, octal, hex, short,
 * digits of other scripts), a URL has it in the usual one.
 */
function literalOf({ hostname }: URL): string | undefined {
  const text = hostname.replace(/^\[(.*)\]$/, '$1');
  return ipaddr.isValid(text) ? text : undefined;
}

const globalUnicast = ipaddr.parseCIDR('2000::/3') as [ipaddr.IPv6, number];
/** RFC 6052's prefix for NAT64. The one for networks of one's own (64:ff9b:1::/48, RFC 8215) leads into one. */
const nat64 = ipaddr.parseCIDR('64:ff9b::/96') as [ipaddr.IPv6, number];

/**
 * Whether an address can be reached from everywhere (IANA's registries of special-purpose addresses, RFC 6890). One that stands for
 * an IPv4 address, mapped, by 6to4 or by NAT64, is what that is.
 */
export function isPublic(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address instanceof ipaddr.IPv4) return address.range() === 'unicast';
  const embedded = embeddedIn(address);
  if (embedded !== undefined) return embedded.range() === 'unicast';
  return address.range() === 'unicast' && address.match(globalUnicast);
}

function embeddedIn(address: ipaddr.IPv6): ipaddr.IPv4 | undefined {
  const bytes = address.toByteArray();
  if (address.isIPv4MappedAddress()) return address.toIPv4Address();
  if (address.range() === '6to4') return new ipaddr.IPv4(bytes.slice(2, 6));
  return address.match(nat64) ? new ipaddr.IPv4(bytes.slice(12)) : undefined;
}
