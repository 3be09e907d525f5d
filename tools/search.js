// What the search of the built site finds, without a browser, the best page first:
//
//     node tools/search.js SITE WORDS...
//
// It runs the site's own worker on the site's own index and prints a JSON list of paths for each WORDS.

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [site, ...queries] = process.argv.slice(2);
const workers = path.join(site, "assets/javascripts/workers");
const [script] = fs.readdirSync(workers).filter((name) => /^search\..*\.js$/.test(name));
const { config, docs } = JSON.parse(fs.readFileSync(path.join(site, "search/search_index.json")));

let receive, answered;
const worker = {
  addEventListener: (_, listener) => (receive = listener),
  postMessage: (message) => answered(message.data),
  console,
};
worker.self = worker;
vm.runInNewContext(fs.readFileSync(path.join(workers, script), "utf8"), worker);

const SETUP = 0, QUERY = 2; // the kinds of messages to the worker
const ask = (type, data) =>
  new Promise((resolve) => {
    answered = resolve;
    receive({ data: { type, data } });
  });

(async () => {
  await ask(SETUP, { config, docs, options: {} });
  for (const words of queries) {
    const { items } = await ask(QUERY, words);
    console.log(JSON.stringify(items.map((sections) => sections[0].location)));
  }
})();
