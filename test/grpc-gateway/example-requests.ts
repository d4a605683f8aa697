import type { Send } from '../echo-gateway.ts';

/** In a line it stands for the id of what was created last. */
export const createdId = '{created}';

export interface ExampleRequest extends Send {
  line: string;
}

const abe = '/v1/example/a_bit_of_everything';
const legacy = (name: string, value: string) => ({ headers: { [`grpc-metadata-${name}`]: value } });
const trailers = { headers: { te: 'trailers' } };
const form = { 'content-type': 'application/x-www-form-urlencoded' };

const everything = {
  floatValue: 1.5,
  doubleValue: 2.5,
  int64Value: '4294967296',
  uint64Value: '9223372036854775807',
  int32Value: -2147483648,
  fixed64Value: '9223372036854775807',
  fixed32Value: 4294967295,
  boolValue: true,
  stringValue: 'strprefix/foo',
  uint32Value: 4294967295,
  sfixed32Value: 2147483647,
  sfixed64Value: '-4611686018427387904',
  sint32Value: 2147483647,
  sint64Value: '4611686018427387903',
  nonConventionalNameValue: 'camelCase',
  enumValue: 'ONE',
  pathEnumValue: 'ABC',
  nestedPathEnumValue: 'GHI',
  nested: [
    { name: 'bar', amount: 10 },
    { name: 'baz', amount: 20 },
  ],
  repeatedStringValue: ['a', 'b', 'c'],
  oneofString: 'x',
  mapValue: { a: 'ONE', b: 'ZERO' },
  mappedStringValue: { a: 'x', b: 'y' },
  mappedNestedValue: { a: { name: 'x', amount: 1 }, b: { name: 'y', amount: 2 } },
  repeatedEnumAnnotation: ['ONE', 'ZERO'],
  enumValueAnnotation: 'ONE',
  repeatedStringAnnotation: ['a', 'b'],
  repeatedNestedAnnotation: [
    { name: 'hoge', amount: 10 },
    { name: 'fuga', amount: 20 },
  ],
  nestedAnnotation: { name: 'hoge', amount: 10 },
  optionalStringValue: 'optional-str',
};
const bulk = ['foo', 'bar', 'baz', 'qux', 'quux']
  .map((name) => `${JSON.stringify({ ...everything, stringValue: `strprefix/${name}` })}\n`)
  .join('');
const ofPath =
  '1.500000/2.500000/4294967296/separator/9223372036854775807/-2147483648/9223372036854775807/4294967295/true/strprefix/foo/' +
  '4294967295/2147483647/-4611686018427387904/2147483647/4611686018427387903/camelCase/ZERO/DEF/JKL/ONE';
const repeated = [
  '1.5,-1.5',
  '2.5,-2.5',
  '4294967296,-4294967296',
  '0,9223372036854775807',
  '2147483647,-2147483648',
  '0,9223372036854775807',
  '0,4294967295',
  'true,false',
  'foo,bar',
  'AA==,_w==',
  '0,4294967295',
  'ZERO,ONE',
  '2147483647,-2147483648',
  '4294967296,-4294967296',
  '2147483647,-2147483648',
  '4611686018427387903,-4611686018427387904',
];
/** The path of the lists, with one of them in another way. */
const lists = (at: number, text: string) =>
  `GET /v1/example/a_bit_of_everything_repeated/${repeated.map((each, index) => (index === at ? text : each)).join('/')}`;
const standard = {
  id: 'foo',
  Num: '1',
  line_num: '42',
  langIdent: 'English',
  STATUS: 'good',
  en_GB: '1',
  no: 'yes',
  thing: { subThing: { sub_value: 'hi' } },
};
const named = {
  ID: 'foo',
  Num: '1',
  LineNum: '42',
  langIdent: 'English',
  status: 'good',
  En_GB: '1',
  yes: 'yes',
  Thingy: { SubThing: { sub_Value: 'hi' } },
};

/** What the integration tests of grpc-gateway's examples send (examples/internal/integration). */
export const ofIntegrationTests: readonly ExampleRequest[] = [
  // TestEcho
  ...['v1', 'v2'].flatMap((version) => [
    { line: `POST /${version}/example/echo/myid`, body: '{}' },
    { line: `GET /${version}/example/echo/myid/10/golang` },
    { line: `GET /${version}/example/echo1/myid/10/golang` },
    { line: `GET /${version}/example/echo2/golang` },
    { line: `POST /${version}/example/echo_body`, body: '{"id":"example"}', ...trailers },
    { line: `POST /${version}/example/echo_body`, body: '{"id":"example"}' },
    { line: `POST /${version}/example/echo/myid`, body: '{}', ...legacy('location', 'Gj\u00f8vik') },
    { line: `POST /${version}/example/echo/myid`, body: '{}', ...legacy('foo+bar', 'Hello') },
  ]),
  { line: 'GET /v1/example/echo/resource/my_resource_id?resourceId=bad_resource_id' },
  { line: 'GET /v1/example/echo/nested/my_nested_id?n_id.val=foo' },
  { line: 'GET /v1/example/echo/nested/my_nested_id?nId.nId=bad_id' },
  { line: 'PUT /v1/example/echo_nested', body: '{"id":"example","nId":{"nId":"a"}}' },
  { line: 'DELETE /v2/example/echo_delete?id=a' },
  // TestEchoUnauthorized, TestEchoPatch
  { line: 'GET /v1/example/echo_unauthorized' },
  {
    line: 'PATCH /v1/example/echo_patch',
    body: '{"struct_field":{"struct_key":{"layered_struct_key":"struct_val"}},"value_field":{"value_struct_key":"value_struct_val"}}',
  },
  // TestABE
  { line: `POST ${abe}/${ofPath}`, body: '{}' },
  { line: `POST ${abe}`, body: everything },
  { line: `POST ${abe}/bulk`, body: bulk, ...trailers },
  { line: `POST ${abe}/bulk`, body: bulk },
  { line: `POST ${abe}/bulk`, body: bulk, ...legacy('error', 'some error') },
  { line: `POST ${abe}`, body: '{"bool_value": true, "string_value": "strprefix/example"}' },
  { line: `GET ${abe}/${createdId}` },
  { line: `GET ${abe}/not_exist`, ...trailers },
  { line: `GET ${abe}/not_exist` },
  { line: `GET ${abe}` },
  { line: 'GET /v1/example/download' },
  {
    line: `POST ${abe}/echo`,
    body: Array.from({ length: 10 }, (_, at) => `{"value":"message ${at}"}`).join(''),
    headers: { 'transfer-encoding': 'chunked' },
  },
  { line: `POST ${abe}/echo`, body: '', headers: { 'transfer-encoding': 'chunked' } },
  { line: `GET ${abe}/echo/hello` },
  { line: 'POST /v2/example/echo', body: '"hello"' },
  { line: 'POST /v2/example/echo', body: '"hello"', headers: { 'transfer-encoding': 'chunked' } },
  { line: 'GET /v2/example/echo?value=hello' },
  { line: lists(-1, '') },
  { line: `HEAD ${abe}/${createdId}` },
  { line: `HEAD ${abe}/not_exist` },
  { line: `OPTIONS ${abe}/test`, body: '{"bool_value": true, "string_value": "strprefix/example"}' },
  { line: `TRACE ${abe}/test` },
  // TestABEPatch, TestABEPatchBody
  { line: `POST ${abe}`, body: '{"string_value":"strprefix/bar","int32_value":32}' },
  { line: `PATCH /v2/example/a_bit_of_everything/${createdId}`, body: '{"string_value": "strprefix/foo"}' },
  { line: `GET ${abe}/${createdId}` },
  ...['{"paths":["single_nested"]}', '"singleNested"', '""', 'null'].flatMap((mask) => [
    {
      line: `POST ${abe}`,
      body: '{"int32Value":42,"stringValue":"rabbit","singleNested":{"name":"some value","amount":345}}',
    },
    {
      line: `PATCH /v2a/example/a_bit_of_everything/${createdId}`,
      body: `{"abe":{"stringValue":"another","singleNested":{"amount":456}},"updateMask":${mask}}`,
    },
    { line: `GET ${abe}/${createdId}` },
  ]),
  // TestTimeout, TestInvalidTimeout, TestPostWithEmptyBody, TestUnknownPath, TestNotImplemented, TestInvalidArgument
  { line: 'GET /v2/example/timeout', headers: { 'grpc-timeout': '10m' } },
  { line: 'GET /v2/example/timeout', headers: { 'grpc-timeout': 'INVALID' } },
  { line: 'POST /v2/example/postwithemptybody/name', body: '' },
  { line: 'POST /', body: '{}' },
  { line: 'GET /v1/example/echo/myid' },
  { line: 'GET /v1/example/echo/myid/not_int64' },
  // TestResponseBody…
  { line: 'GET /responsebody/foo' },
  { line: 'GET /responsebodies/foo' },
  { line: 'GET /responsestrings/foo' },
  { line: 'GET /responsestrings/empty' },
  { line: 'GET /responsebody/samename/foo' },
  { line: 'GET /responsebody/importedtype/foo' },
  { line: 'GET /responsebody/stream/foo' },
  { line: 'GET /v1/example/download?error=true' },
  // TestRequestQueryParams
  {
    line: `GET ${abe}/params/get/foo?double_value=1234.56&bool_value=true&mapped_string_value[map_key]=map_value`,
  },
  { line: `GET ${abe}/params/get/nested_enum/TRUE` },
  { line: `GET ${abe}/params/get/nested_enum/1` },
  { line: `GET ${abe}/params/get/foo?oneof_empty=` },
  {
    line: `POST ${abe}/params/post/hello-world?double_value=1234.56&bool_value=true`,
    body: '{"name":"foo","amount":100}',
  },
  {
    line: `POST ${abe}/params/get/foo?double_value=1234.56&bool_value=true`,
    body: 'optional_string_value=optional-val&repeated_string_value=demo1&repeated_string_value=demo2&string_value=hello-world',
    headers: form,
  },
  // TestNonStandardNames
  { line: 'PATCH /v1/example/non_standard/update', body: standard },
  {
    line: 'PATCH /v1/example/non_standard/update',
    body: {
      ...standard,
      line_num: undefined,
      lineNum: '42',
      en_GB: undefined,
      enGB: '1',
      thing: { subThing: { subValue: 'hi' } },
    },
  },
  { line: 'PATCH /v1/example/non_standard/update_with_json_names', body: standard },
  { line: 'PATCH /v1/example/non_standard/update_with_json_names', body: named },
  // TestRequestParseForm
  { line: 'POST /v1/example/echo/myid1', body: 'num=1', headers: form },
];

const wrapped: Record<string, string[]> = {
  String: ['"s"', '""', '5', 'null', '{"value":"s"}', '', '[]', ' "s" '],
  Int32: ['5', '"5"', '5.5', '2147483648', 'null', '{}', ''],
  Int64: ['5', '"9223372036854775807"', '9223372036854775807', '1e3', 'true', ''],
  Float: ['1.5', '"NaN"', '1e39', '"x"', ''],
  Double: ['1.5', '"Infinity"', '-0', '"1.5"', '[1]'],
  Bool: ['true', 'false', '"true"', '1', 'null'],
  Uint32: ['5', '-1', '4294967295', '4294967296'],
  Uint64: ['"18446744073709551615"', '18446744073709551616', '-1'],
  Bytes: ['"YWI="', '"YWI"', '"-_8"', '"!"', '1'],
  Empty: ['{}', '', 'null', '[]', '{"a":1}', '"s"'],
};

/** What else the examples' rules make possible. */
export const ofRules: readonly ExampleRequest[] = [
  // Verbs, also those with a colon.
  { line: `POST ${abe}`, body: '{"string_value":"strprefix/a"}' },
  { line: `POST ${abe}/${createdId}:custom` },
  { line: `POST ${abe}/${createdId}:custom:custom` },
  { line: `POST ${abe}/${createdId}:custom:custom:custom` },
  { line: `POST ${abe}/${createdId}:other` },
  { line: `POST ${abe}/:custom` },
  { line: `POST ${abe}/nope:custom:custom` },
  { line: `GET ${abe}/custom/a` },
  { line: 'GET /v2/ABC:check' },
  { line: 'GET /v2/NOPE:check' },
  { line: 'GET /v3/1:check' },
  { line: 'GET /v3/GHI' },
  // A body that is a path.
  ...['"x"', '', 'null', '5', '{}', '{"inputValue":"x"}'].map((body) => ({
    line: `POST ${abe}/nested_body_oneof`,
    body,
  })),
  { line: `POST ${abe}/nested_body_oneof?payload.input_value=y`, body: '"x"' },
  ...['{}', '{"exampleEnum":1}', '"TWO"', '1', '9', 'null', ''].map((body) => ({
    line: 'POST /v1/example/oneofenum',
    body,
  })),
  // Lists in paths.
  ...[
    [0, '1.5'],
    [0, '1.5,'],
    [0, 'x'],
    [2, '1,x'],
    [4, '2147483648'],
    [7, 'true,T,0'],
    [8, 'a,,b'],
    [8, ','],
    [8, 'a%2Cb'],
    [8, 'a%20b,c%2Fd'],
    [9, 'AA,YWI='],
    [9, '!'],
    [11, '1,0'],
    [11, 'TWO'],
    [11, '7'],
  ].map(([at, text]) => ({ line: lists(at as number, text as string) })),
  { line: `${lists(-1, '')}?path_repeated_string_value=x` },
  // Messages that have a form of their own in JSON.
  ...Object.entries(wrapped).flatMap(([name, bodies]) =>
    bodies.map((body) => ({ line: `POST /v1/test${name}`, body })),
  ),
  ...[
    '{"stringValue":"a","int32Value":1,"int64Value":"2","floatValue":1.5,"doubleValue":2.5,"boolValue":true,"uint32Value":3,"uint64Value":"4","bytesValue":"YQ=="}',
    '{}',
    '{"stringValue":null}',
    '{"int64Value":5}',
  ].map((body) => ({ line: 'POST /v1/example/wrappers', body })),
  ...['"1.5s"', '"1.5s""2s"', '"1s"\n"0s"\n', '', '"x"', '5', '{}', '"1s" "x"', '{"seconds":1}'].map((body) => ({
    line: `POST ${abe}/echo_duration`,
    body,
  })),
  { line: 'GET /v2/example/overwriteresponsecontenttype' },
  { line: 'POST /v2/example/overwriterequestcontenttype', body: '{"name":"a"}' },
  { line: 'GET /v1/example/checkStatus' },
  { line: 'GET /v2/example/errorwithdetails' },
  { line: 'GET /v2/example/empty' },
  { line: 'GET /v2/example/empty?x=1' },
  // Messages alone in a query, and their fields.
  { line: `GET ${abe}/params/get/foo?single_nested=x` },
  { line: `GET ${abe}/params/get/foo?single_nested.amount=5` },
  { line: `GET ${abe}/params/get/foo?single_nested.ok=TRUE&single_nested.name=bar` },
  { line: `GET ${abe}/params/get/foo?oneof_empty=&oneof_string=x` },
  { line: `GET ${abe}/params/get/foo?oneof_string=x` },
  { line: `GET ${abe}/params/get/foo?timestamp_value=2026-11-30T04:00:00Z` },
  { line: `GET ${abe}/params/get/foo?repeated_enum_value=ONE&repeated_enum_value=0` },
  { line: `GET ${abe}/params/get/foo?map_value[a]=ONE` },
  { line: `GET ${abe}/params/get/foo?map_value[a]=TWO` },
  { line: `GET ${abe}/params/get/foo?nonConventionalNameValue=x` },
  { line: `GET ${abe}/params/get/foo?required_field_schema_json_name_custom=x` },
  { line: `GET ${abe}/params/get/foo?nested.name=x` },
  { line: `GET ${abe}/query/abc?string_value=x` },
  // Nested variables, and bodies that hold them, too.
  { line: 'POST /v1/example/deep_path/name', body: '{"string_value":"a","single_nested":{"amount":3}}' },
  { line: 'POST /v1/example/deep_path/name', body: '{"single_nested":{"name":"other"}}' },
  { line: `PUT ${abe}/entity/e1`, body: '{"otherField":"x"}' },
  { line: 'POST /v1/publishers/p1/books?bookId=b1', body: '{"name":"n"}' },
  { line: 'POST /v1/publishers/p1/books' },
  { line: 'PATCH /v1/publishers/p1/books/b1', body: '{"id":"x"}' },
  { line: 'PATCH /v1/publishers/p1/books/b1?allowMissing=true', body: '{"createTime":"2026-11-30T04:00:00Z"}' },
  { line: 'PATCH /v1/publishers/p1/books/b1?updateMask=id', body: '{"id":"x"}' },
  { line: 'POST /v2/example/withbody/i1', body: '{"name":"n"}' },
  { line: 'POST /v1/example/requiredmessagetype', body: '{"id":"i","foo":{"bar":{"id":"x"}}}' },
  { line: 'PUT /v1/example/echo_body/myid?num=3', body: '{"progress":"5"}' },
  { line: 'PUT /v1/example/echo_body/myid', body: '' },
  { line: 'PUT /v1/example/echo_body/myid?en=3', body: '{"note":"n"}' },
  { line: 'GET /v1/example/echo1/myid/x/golang' },
  { line: 'GET /v1/example/echo/myid/10?line_num=5' },
  { line: 'GET /v1/example/echo/myid/10?line_num=5&lang=de' },
  { line: 'GET /v1/example/echo2/golang?en=3' },
  { line: 'DELETE /v1/example/echo_delete?id=x&status.progress=5' },
  {
    line: 'POST /v1/example/echo_status',
    body: '{"id":"i","subStatus":"OK","sub2Status":{"code":3}}',
  },
  // Streams in both directions, with and without bodies.
  ...['empty', 'body'].flatMap((kind) => [
    { line: `POST /rpc/${kind}/rpc`, body: '{"a":"1","b":"2"}' },
    { line: `POST /rpc/${kind}/stream`, body: '{"a":"1","b":"2"}' },
  ]),
  { line: 'POST /stream/empty/rpc', body: '{}{}' },
  { line: 'POST /stream/empty/stream', body: '{}{}{}' },
  { line: 'POST /stream/empty/stream', body: '' },
  ...['rpc', 'stream'].flatMap((kind) => [
    { line: `POST /rpc/path/1/2/3/${kind}` },
    { line: `POST /rpc/query/${kind}?a=1&b=2` },
    { line: `POST /rpc/body/path/1/2/${kind}`, body: '"3"' },
    { line: `POST /rpc/body/path/1/2/${kind}`, body: '{}' },
    { line: `POST /rpc/body/query/${kind}?a=1`, body: '"3"' },
    { line: `POST /rpc/body/path/1/query/${kind}?b=2&c=4`, body: '"3"' },
    { line: `POST /rpc/path/1/query/${kind}?b=2` },
    { line: `POST /rpc/path-nested/1/${kind}` },
    { line: `POST /rpc/path-nested/1/2/${kind}`, body: '"3"' },
    { line: `POST /rpc/path-nested1/1/${kind}?b=2&a.str=9` },
    { line: `POST /rpc/path-nested2/1/${kind}?b=2`, body: '"3"' },
  ]),
  { line: 'GET /v1/example/a_bit_of_everything?error=true' },
  // Behind it nobody asks for the list: whether the first message got there is a matter of time.
  { line: `POST ${abe}/bulk`, body: '{"stringValue":"strprefix/a"}{"int32Value":"x"}' },
  // Services of which only the rules are known.
  { line: 'GET /v1/products/p1?includeVariants=true&languageCode=de' },
  { line: 'GET /v1/products/search?query=x' },
  {
    line: 'POST /v1/products',
    body: '{"product":{"productId":"p","name":"n","isFeatured":true,"averageShippingTime":"1.5s","status":"OPAQUE_PRODUCT_STATUS_ACTIVE","taxExempt":false}}',
  },
  { line: 'POST /v1/productsField', body: '{"productId":"p","regionalPrices":{"de":{"amount":1.5}}}' },
  { line: 'POST /v1/orders/process', body: '{"order":{"orderId":"1"}}{"order":{"orderId":"2"}}' },
  { line: 'POST /v1/customer/activity', body: '{"event":{"customerId":"1"}}{"event":{"customerId":"2"}}' },
  { line: 'PATCH /v1/products/p1', body: '{"name":"n","basePrice":{"amount":2}}' },
  { line: 'GET /v1/orders/search/OPAQUE_ORDER_STATUS_PENDING/shipAddressType/1' },
  { line: 'POST /v1/notes:echo', body: '{"value":"v"}' },
  { line: 'GET /v1/camel_case/CAMEL_STATUS_AVAILABLE' },
  { line: 'POST /v1/camel_case/books', body: '{}' },
  { line: 'GET /v1/example/snake/value_e/value_d/value_x' },
  { line: 'GET /v1/example/snake/0/1/0' },
  { line: 'GET /v1/example/echo_internal?id=1' },
  { line: 'POST /v1/example/internal/echo/1' },
];
