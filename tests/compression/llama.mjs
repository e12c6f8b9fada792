// Asks llama.cpp, by way of the npm package node-llama-cpp, for token ids and greedy continuations.
// Usage: node llama.mjs PACKAGE_DIRECTORY MODEL.gguf QUESTIONS.json ANSWERS.json; the questions are
// {"texts": [...], "prompts": [[id, ...]], "tokens": n}
import {readFileSync, writeFileSync} from "node:fs";

const [packageDirectory, path, questions, answers] = process.argv.slice(2);
const {getLlama} = await import(`${packageDirectory}/dist/index.js`);
const asked = JSON.parse(readFileSync(questions, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath: path});
const ids = asked.texts.map((text) => model.tokenize(text, false));
const context = await model.createContext({contextSize: 128, sequences: 1});
const sequence = context.getSequence();
const continued = [];
for (const prompt of asked.prompts) {
    await sequence.clearHistory();
    const found = [];
    for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        found.push(token);
        if (found.length >= asked.tokens || model.isEogToken(token)) break;
    }
    continued.push(found);
}
writeFileSync(answers, JSON.stringify({ids, continued})); // a pipe would be cut off by exit
process.exit(0);
