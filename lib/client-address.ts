import ipaddr from 'ipaddr.js';

type Network = [ipaddr.IPv4 | ipaddr.IPv6, number];

/** The prefix length of the IPv6 network that a provider gives to one customer, who has all addresses in it. */
const customerBits = 56;

/**
 * The client that an address belongs to, for limits by address: an IPv4 address itself (also one mapped into IPv6), or the /56 network of
 * an IPv6 address (`2001:db8:0:100::/56`). Text that is no address is returned as it is.
 */
export function clientOf(address: string): string {
  // Most are IPv4, and need no parsing.
  if (!address.includes(':') || !ipaddr.isValid(address)) return address;
  const parsed = ipaddr.process(address);
  if (parsed.kind() === 'ipv4') return parsed.toString();
  const network = ipaddr.IPv6.networkAddressFromCIDR(`${withoutZone(parsed)}/${customerBits}`);
  return `${network.toString()}/${customerBits}`;
}

function withoutZone(address: ipaddr.IPv4 | ipaddr.IPv6): string {
  return address.toString().split('%', 1)[0] as string;
}

/** Whether a text is an IP address, or a network in CIDR notation (RFC 4632, RFC 4291): `10.0.0.0/8`, `fd00::/8`. */
export function isNetwork(text: string): boolean {
  const { IPv4, IPv6 } = ipaddr;
  // Short forms of IPv4 addresses (`10.1` for 10.0.0.1) are usually mistakes, so they are refused.
  if (!text.includes(':')) return IPv4.isValidCIDRFourPartDecimal(text) || IPv4.isValidFourPartDecimal(text);
  return IPv6.isValidCIDR(text) || IPv6.isValid(text);
}

/** A list of addresses and networks that can be asked whether it contains an address. */
export class Networks {
  readonly #networks: readonly Network[];
  /** Answers by address: the same few addresses are asked for again and again. */
  readonly #known = new Map<string, boolean>();

  /** @param list addresses and networks in CIDR notation, each as `isNetwork` has it */
  constructor(list: readonly string[]) {
    this.#networks = list.map((text) => {
      if (text.includes('/')) return ipaddr.parseCIDR(text);
      const address = ipaddr.process(text);
      return [address, address.kind() === 'ipv4' ? 32 : 128];
    });
  }

  /** Whether the list contains the address. An IPv4 address that is mapped into IPv6 counts as IPv4. */
  has(address: string): boolean {
    let found = this.#known.get(address);
    if (found === undefined) {
      found = this.#find(address);
      if (this.#known.size >= maxCached) this.#known.clear();
      this.#known.set(address, found);
    }
    return found;
  }

  #find(address: string): boolean {
    if (!ipaddr.isValid(address)) return false;
    const parsed = ipaddr.process(address);
    return this.#networks.some(([network, bits]) => network.kind() === parsed.kind() && parsed.match([network, bits]));
  }
}

const maxCached = 1_000;
