// How fast llama.cpp writes, by way of the npm package node-llama-cpp: prints the least
// milliseconds between two tokens as JSON.
// Usage: node llama_speed.mjs PACKAGE_DIRECTORY MODEL.gguf THREADS PROMPT_TOKENS NEW_TOKENS ROUNDS
const [packageDirectory, path, ...numbers] = process.argv.slice(2);
const [threads, promptTokens, newTokens, rounds] = numbers.map(Number);
const {getLlama} = await import(`${packageDirectory}/dist/index.js`);
const llama = await getLlama({
    gpu: false, build: "never", logLevel: "error", maxThreads: threads,
});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 256, sequences: 1, threads});
const sequence = context.getSequence();
const prompt = Array.from({length: promptTokens}, (_, index) => 1 + 7 * index % 200);
let least = Infinity;
for (let round = 0; round < rounds; ++round) {
    await sequence.clearHistory();
    let last = 0, count = 0;
    for await (const _ of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        const now = performance.now();
        if (last) least = Math.min(least, now - last);
        last = now;
        if (++count >= newTokens) break;
    }
}
console.log(JSON.stringify({milliseconds: least}));
process.exit(0);
