import test from 'ava';
import { openConversation, startMeshes } from './meshes.ts';
const meshes = await startMeshes(['embedded', 'kafka'], { people: 101 });
for (const mesh of meshes) {
  const r = await Promise.allSettled([1,2,3].map(() => openConversation(mesh.people.slice(0,3))));
  console.log(mesh.bus, r.map(x=>x.status));
  for (const p of [mesh.gateway, ...Object.values(mesh.services)]) for (const l of p.lines) if (JSON.parse(l).level >= 50) console.log(l);
}
test('x', (t) => t.pass());
test.after.always(async () => { await Promise.all(meshes.map((mesh) => mesh.stop()));
 console.log('stopped', process.getActiveResourcesInfo());
 setTimeout(() => {
   console.log('5s later', process.getActiveResourcesInfo());
   for (const h of (process as any)._getActiveHandles()) console.log(h.constructor.name, h.remotePort, h.remoteAddress, h.localPort, h.spawnfile, h.fd, h.path);
   for (const mesh of meshes) for (const [n,p] of Object.entries(mesh.services)) console.log(mesh.bus, n, p.lines.slice(-3).join(''));
 }, 8000).unref(); setTimeout(()=>{}, 9000);
});
